"""Norm, projection and what follows it in one launch, for a single image of few tokens.

Operators of the Triton kernels in `nn/kernels/one_image.py`, which have no gradient. They serve compiled networks in
bfloat16, such as a latent sampler's; everything else takes the modules' own code, which defines them:

    norm_gate(x, ...)    geglu(up_proj(norm(x)))
    norm_heads(x, ...)   to_heads(qkv_proj(norm(x)))
"""

import torch
from torch import Tensor, nn
from torch.library import wrap_triton

from lediflow.nn import kernels
from lediflow.nn.norms import EPS
from lediflow.nn.rope import Rotation

MOST_TOKENS = 16  # for more, the products of cuBLAS are so much faster that separate kernels win
HEAD_DIM = 64  # the only one: products of the kernels must be 16 channels wide or more
ROWS, COLUMNS, STEP = 16, 16, 64  # tokens and outputs of a program, channels of one step of its product


def serves(x: Tensor, projection: nn.Module) -> bool:
    """Whether the kernels can be used for these tokens."""
    return (
        torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()  # not measured
        and not torch.is_grad_enabled()
        and x.ndim == 4
        and x.shape[0] == 1
        and x.shape[1] * x.shape[2] <= MOST_TOKENS
        and x.shape[3] % STEP == 0
        and x.dtype == torch.bfloat16
        and type(projection) is nn.Linear  # not one that rounds to 8 bits
        and projection.weight.dtype == torch.bfloat16
        and kernels.missing(x.device, x.dtype) is None
    )


@kernels.operator("norm_gate")
def norm_gate(x: Tensor, scale: Tensor, offset: float, weight: Tensor) -> Tensor:
    """The gated channels; the norm's scale is `scale` + `offset`, one for all tokens."""
    from lediflow.nn.kernels import one_image as kernel

    x, tokens, width = x.contiguous(), x.shape[1] * x.shape[2], x.shape[3]
    hidden = weight.shape[0] // 2
    out = x.new_empty(*x.shape[:3], hidden)
    wrap_triton(kernel.norm_gate)[-(-tokens // ROWS), hidden // COLUMNS](
        x, scale.contiguous(), weight, out, tokens,
        WIDTH=width, HIDDEN=hidden, OFFSET=offset, EPS=EPS, BM=ROWS, BN=COLUMNS, BK=STEP, num_warps=4, num_stages=4,
    )  # fmt: skip
    return out


@kernels.operator("norm_heads")
def _norm_heads(
    x: Tensor, scale: Tensor, offset: float, weight: Tensor, head_scale: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    from lediflow.nn.kernels import one_image as kernel

    x, tokens, width = x.contiguous(), x.shape[1] * x.shape[2], x.shape[3]
    heads = len(head_scale)
    out = x.new_empty(3, 1, heads, x.shape[1], x.shape[2], width // heads)
    wrap_triton(kernel.norm_heads)[-(-tokens // ROWS), 3 * heads](
        x, scale.contiguous(), weight, head_scale, cos.contiguous(), sin.contiguous(), out, tokens,
        WIDTH=width, HEADS=heads, HEAD_DIM=width // heads, OFFSET=offset, NORM_EPS=EPS, HEAD_EPS=EPS,
        BM=ROWS, BK=STEP, num_warps=4, num_stages=4,
    )  # fmt: skip
    return out


def norm_heads(
    x: Tensor, scale: Tensor, offset: float, weight: Tensor, head_scale: Tensor, positions: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, with each head's tokens together, as the kernel of `to_heads` lays them out."""
    q, k, v = _norm_heads(x, scale, offset, weight, head_scale, positions.cos, positions.sin).unbind()
    return q.permute(0, 2, 3, 1, 4), k.permute(0, 2, 3, 1, 4), v.permute(0, 2, 3, 1, 4)
