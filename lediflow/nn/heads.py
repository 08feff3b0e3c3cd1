"""Splits one projection into the queries, keys and values of every head.

Queries and keys are scaled to length sqrt(s), where s is learned per head, so that a logit is s cos(angle). Then the
rotary position embedding is applied. Call `to_heads`. `plain_heads` is the definition; on GPUs a Triton kernel
replaces it, forward and backward.
Source: HDiT, arXiv:2401.11605.
"""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.library import wrap_triton

from lediflow.nn import kernels
from lediflow.nn.norms import EPS, at_least_float32
from lediflow.nn.rope import Rotation, rotate
from lediflow.nn.shapes import Heads

BLOCK = 32  # tokens per program
HEAD_DIMS = (8, 16, 32, 64, 128)  # powers of two, as Triton's blocks must be


class QueryKeyValue(NamedTuple):
    """Queries, keys and values, each "batch height width heads head_dim"."""

    q: Heads
    k: Heads
    v: Heads


def to_heads(
    qkv: Float[Tensor, "batch height width three_widths"],
    scale: Float[Tensor, " heads"],
    positions: Rotation,
    head_dim: int,
) -> QueryKeyValue:
    """Queries, keys and values for attention with scale 1, by the Triton kernel if it can be used."""
    if kernels.missing(qkv.device, qkv.dtype) is None and head_dim in HEAD_DIMS:
        q, k, v, _ = _forward(qkv, scale, positions.cos, positions.sin)
        return QueryKeyValue(q, k, v)
    return plain_heads(qkv, scale, positions, head_dim)


def plain_heads(
    qkv: Float[Tensor, "batch height width three_widths"],
    scale: Float[Tensor, " heads"],
    positions: Rotation,
    head_dim: int,
) -> QueryKeyValue:
    q, k, v = rearrange(qkv, "b h w (three heads d) -> three b h w heads d", three=3, d=head_dim)
    q, k = (rotate(to_length_sqrt(side, scale), positions) for side in (q, k))
    return QueryKeyValue(q, k, v)


def to_length_sqrt(x: Heads, scale: Float[Tensor, " heads"]) -> Heads:
    """x with each head's vectors scaled to length sqrt(scale): their dot products are scale times a cosine."""
    square_length = at_least_float32(x).square().sum(dim=-1, keepdim=True)
    factor = at_least_float32(scale).sqrt()[:, None] * torch.rsqrt(square_length + EPS)
    return x * factor.to(x.dtype)


@kernels.operator("to_heads")
def _forward(qkv: Tensor, scale: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from lediflow.nn.kernels import heads as kernel

    q, k, v, factors = empty_outputs(qkv, len(scale))
    wrap_triton(kernel.split_and_rotate)[programs(q)](
        qkv.contiguous(), scale, cos.contiguous(), sin.contiguous(), q, k, v, factors,
        *strides(q), *sizes(q), EPS=EPS, HEAD_DIM=q.shape[-1], BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return q, k, v, factors


@kernels.operator("to_heads_backward")
def _backward(
    q: Tensor,
    k: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    scale: Tensor,
    cos: Tensor,
    sin: Tensor,
    factors: Tensor,
) -> tuple[Tensor, Tensor]:
    from lediflow.nn.kernels import heads as kernel

    dq, dk, dv = (by_position(x) for x in (dq, dk, dv))
    dqkv, products = empty_gradients(q, factors)
    wrap_triton(kernel.split_and_rotate_gradient)[programs(q)](
        q, k, dq, dk, dv, scale, cos.contiguous(), sin.contiguous(), factors, dqkv, products,
        *strides(q), *strides(dq), *strides(dk), *strides(dv), *sizes(q),
        HEAD_DIM=q.shape[-1], BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return dqkv, products


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, scale, cos, sin = inputs
    q, k, _, factors = output
    ctx.save_for_backward(q, k, scale, cos, sin, factors)


def _differentiate(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, scale, cos, sin, factors = ctx.saved_tensors
    dqkv, products = _backward(q, k, dq, dk, dv, scale, cos, sin, factors)
    by_scale = products.sum(dim=(0, 1, 2, 3)) / (2 * scale)
    return dqkv, by_scale.to(scale.dtype), None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def empty_outputs(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Uninitialised q, k and v, with each head's tokens contiguous as attention reads them, and length factors."""
    batch, height, width, channels = qkv.shape
    shape = (batch, heads, height, width, channels // (3 * heads))
    q, k, v = (qkv.new_empty(shape).permute(0, 2, 3, 1, 4) for _ in range(3))
    return q, k, v, qkv.new_empty((batch, height, width, 2, heads), dtype=torch.float32)


def empty_gradients(q: Tensor, factors: Tensor) -> tuple[Tensor, ...]:
    """Uninitialised gradient of the projection's output, and products y . dy."""
    batch, height, width, heads, head_dim = q.shape
    return q.new_empty((batch, height, width, 3 * heads * head_dim)), torch.empty_like(factors)


def by_position(x: Tensor) -> Tensor:
    """x, copied unless its tokens have one common stride and its channels are contiguous."""
    is_regular = x.stride(-1) == 1 and x.stride(1) == x.shape[2] * x.stride(2)
    return x if is_regular else x.contiguous()


def programs(x: Tensor) -> tuple[int, int]:
    """Grid of programs: one for each block of tokens of each head."""
    batch, height, width, heads, _ = x.shape
    return -(-batch * height * width // BLOCK), heads


def strides(x: Tensor) -> tuple[int, int, int]:
    """Strides from image to image, position to position, and head to head."""
    return x.stride(0), x.stride(2), x.stride(3)


def sizes(x: Tensor) -> tuple[int, int, int]:
    """Number of tokens in the batch, of positions in an image, and of heads."""
    batch, height, width, heads, _ = x.shape
    return batch * height * width, height * width, heads
