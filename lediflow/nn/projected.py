"""Attention of all tokens from the projection's output in one kernel, for passes without a gradient over few tokens.

Equals `to_heads` and the attention of its result, to rounding. Queries and keys are not written to memory, and each
layer has two launches less. For one image that saves a third of the time of attention; for many images of more than
64 tokens, whose keys would be prepared by several programs, the separate kernels are faster.
"""

import torch
from torch import Tensor
from torch.library import wrap_triton

from lediflow.nn import kernels
from lediflow.nn.norms import EPS
from lediflow.nn.rope import Rotation
from lediflow.nn.shapes import Heads

HEAD_DIMS = (16, 32, 64, 128)  # products of Triton are 16 channels wide or more
MOST_TOKENS = 64  # of one of several images
MOST_TOKENS_OF_ONE = 256
KEY_NUMBERS = 2**14  # entries of the keys that a program takes at once


def serves(qkv: Tensor, head_dim: int) -> bool:
    """Whether the kernel is to be used: without gradients, on GPUs, for 16-bit numbers, and where it is the fastest."""
    batch, height, width = qkv.shape[:3]
    return (
        not torch.is_grad_enabled()
        and height * width <= (MOST_TOKENS_OF_ONE if batch == 1 else MOST_TOKENS)
        and head_dim in HEAD_DIMS
        and qkv.element_size() == 2  # products of float32 would be slow without rounding
        and kernels.missing(qkv.device, qkv.dtype) is None
    )


def attend(qkv: Tensor, scale: Tensor, positions: Rotation, head_dim: int) -> Heads:
    """Attention with scale 1 over the whole grid, with each token's heads together."""
    mixed: Heads = _attend(qkv, scale, positions.cos, positions.sin, head_dim)
    return mixed


@kernels.operator("attend_projected")
def _attend(qkv: Tensor, scale: Tensor, cos: Tensor, sin: Tensor, head_dim: int) -> Tensor:
    from lediflow.nn.kernels import projected as kernel

    batch, height, width = qkv.shape[:3]
    tokens, heads = height * width, len(scale)
    out = qkv.new_empty(batch, height, width, heads, head_dim)
    chosen = tile(tokens, head_dim, is_single=batch == 1)
    wrap_triton(kernel.attend_projected)[-(-tokens // chosen["QUERIES"]), batch * heads](
        qkv.contiguous(), scale, cos.contiguous(), sin.contiguous(), out, tokens, heads,
        EPS=EPS, HEAD_DIM=head_dim, PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32", **chosen,
    )  # fmt: skip
    return out


def tile(tokens: int, head_dim: int, *, is_single: bool) -> dict[str, int]:
    """Queries and keys of a program, and its warps; a single image does not fill a GPU, so its programs are small."""
    whole = max(16, 1 << (tokens - 1).bit_length())
    keys = min(whole, KEY_NUMBERS // head_dim)
    queries = min(whole, 32 if is_single else 64)
    return {"QUERIES": queries, "KEYS": keys, "num_warps": 8 if keys > 32 else 2, "num_stages": 1}
