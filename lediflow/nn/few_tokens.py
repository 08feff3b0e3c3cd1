"""Attention over all tokens of a small grid, forward and backward in one launch each.

PyTorch's fused kernels work in tiles of 64 or 128 queries and keys and in several launches. For 64 tokens, as in the
coarse levels of small images, both passes take a third of their time (docs/performance_experiments.md). Equals
`dot_product_attention` with scale 1, to rounding.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import wrap_triton

from lediflow.nn import kernels
from lediflow.nn.shapes import Heads

MOST_TOKENS = 64
HEAD_DIMS = (16, 32, 64)  # products of Triton are 16 channels wide or more


def serves(q: Heads) -> bool:
    """Whether the kernels can be used for these queries."""
    return (
        q.shape[1] * q.shape[2] <= MOST_TOKENS
        and q.shape[-1] in HEAD_DIMS
        and q.element_size() == 2  # products of float32 would be slow without rounding
        and kernels.missing(q.device, q.dtype) is None
    )


@kernels.operator("attend_few")
def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k') v of every head, each "batch height width heads head_dim", with each token's heads together."""
    from lediflow.nn.kernels import few_tokens as kernel

    q, k, v = map(kernels.by_position, (q, k, v))
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    wrap_triton(kernel.attend)[(programs(q),)](
        q, k, v, out, *kernels.strides(q, k, v), *sizes(q), HEAD_DIM=q.shape[-1], num_warps=4
    )
    return out


@kernels.operator("attend_few_backward")
def _attend_backward(q: Tensor, k: Tensor, v: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from lediflow.nn.kernels import few_tokens as kernel

    q, k, v, grad_out = map(kernels.by_position, (q, k, v, grad_out))
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    wrap_triton(kernel.attend_gradient)[(programs(q),)](
        q, k, v, grad_out, dq, dk, dv, *kernels.strides(q, k, v, grad_out), *sizes(q),
        HEAD_DIM=q.shape[-1], num_warps=4,
    )  # fmt: skip
    return dq, dk, dv


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_out: Tensor) -> tuple[Tensor, ...]:
    return _attend_backward(*ctx.saved_tensors, grad_out)


attend.register_autograd(_differentiate, setup_context=_save)


def programs(x: Tensor) -> int:
    """One program for each head of an image."""
    return x.shape[0] * x.shape[3]


def sizes(x: Tensor) -> tuple[int, int, int]:
    """Number of tokens and of heads, and of the rows of a program: a power of two, 16 at least."""
    tokens = x.shape[1] * x.shape[2]
    return tokens, x.shape[3], max(16, 1 << (tokens - 1).bit_length())
