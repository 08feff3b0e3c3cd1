"""Self-attention over the token grid: global or neighborhood, with cosine similarity.

One projection is split into the queries, keys and values of every head. Queries and keys are scaled to length sqrt(s),
where s is learned per head and initialised to 10, so a logit is s cos(angle). Then the rotary position embedding is
applied. The block is residual and its last projection is initialised to zero. Dropout, if any, is applied to the output
of attention, before that projection.

`plain_heads` defines the split; on GPUs `to_heads` calls a Triton kernel instead, forward and backward.
Source: HDiT, arXiv:2401.11605; dropout as in k-diffusion's `image_transformer_v2`.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.library import wrap_triton

from lediflow.nn import few_tokens, kernels, projected
from lediflow.nn.dot_product import grid_attention
from lediflow.nn.dropout import DropsEntries
from lediflow.nn.neighborhood import check_route, neighborhood_attention
from lediflow.nn.norms import EPS, at_least_float32, norm_for
from lediflow.nn.rope import Rotation, rotate
from lediflow.nn.shapes import Condition, Heads, SampleKeys, Tokens
from lediflow.nn.specs import LevelSpec

INITIAL_SCALE = 10.0
BLOCK, WARPS = 16, 2  # tokens and warps per program of the Triton kernels
HEAD_DIMS = (8, 16, 32, 64, 128)  # of the Triton kernels, whose blocks must be powers of two


class SelfAttention(DropsEntries):
    """Residual self-attention block; global if the level's kernel_size is None."""

    def __init__(self, level: LevelSpec, condition_width: int | None, route: str = "auto") -> None:
        super().__init__()
        check_route(route)
        self.head_dim, self.kernel_size, self.route = level.head_dim, level.kernel_size, route
        self.dropout = level.dropout
        self.norm = norm_for(level.width, condition_width)
        self.qkv_proj = nn.Linear(level.width, 3 * level.width, bias=False)
        self.scale = nn.Parameter(torch.full((level.num_heads,), INITIAL_SCALE))
        self.out_proj = nn.Linear(level.width, level.width, bias=False)
        nn.init.zeros_(self.out_proj.weight)

    def extra_repr(self) -> str:
        return f"head_dim={self.head_dim}, kernel_size={self.kernel_size}, route={self.route!r}"

    def forward(
        self,
        x: Tokens,
        positions: Rotation,
        condition: Condition | None = None,
        keys: SampleKeys | None = None,
    ) -> Tokens:
        mixed = self.attend(self.qkv_proj(self.norm(x, condition)), positions)
        return x + self.out_proj(self.dropped(mixed.flatten(3), keys))

    def attend(self, qkv: Float[Tensor, "batch height width three_widths"], positions: Rotation) -> Heads:
        """Each token's mixed values, from the projection's output."""
        if self.kernel_size is None and projected.serves(qkv, self.head_dim):
            return projected.attend(qkv, self.scale, positions, self.head_dim)
        if self.kernel_size is None:
            return global_attention(*to_heads(qkv, self.scale, positions, self.head_dim, by_token=True))
        q, k, v = to_heads(qkv, self.scale, positions, self.head_dim)
        return neighborhood_attention(q, k, v, self.kernel_size, scale=1.0, route=self.route)


def global_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """Every token attends to every token; logits are not scaled by 1 / sqrt(head_dim)."""
    if few_tokens.serves(q):
        mixed: Heads = few_tokens.attend(q, k, v)
        return mixed
    return grid_attention(q, k, v, scale=1.0)


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
    by_token: bool = False,
) -> QueryKeyValue:
    """Queries, keys and values for attention with scale 1, by the Triton kernel if it can be used.

    In memory it keeps each head's tokens together, as neighborhood attention reads them, or each token's heads
    (`by_token`): cuDNN's attention lays out its result as the queries, and the next projection reads it by token.
    """
    if kernels.missing(qkv.device, qkv.dtype) is None and head_dim in HEAD_DIMS:
        q, k, v, _ = _split_heads(qkv, scale, positions.cos, positions.sin, by_token)
        return QueryKeyValue(q, k, v)
    return plain_heads(qkv, scale, positions, head_dim)


def plain_heads(
    qkv: Float[Tensor, "batch height width three_widths"],
    scale: Float[Tensor, " heads"],
    positions: Rotation,
    head_dim: int,
) -> QueryKeyValue:
    """The definition of `to_heads`, in plain PyTorch."""
    q, k, v = qkv.unflatten(3, (3, -1, head_dim)).unbind(3)
    q, k = (rotate(to_length_sqrt(side, scale), positions) for side in (q, k))
    return QueryKeyValue(q, k, v)


def to_length_sqrt(x: Heads, scale: Float[Tensor, " heads"]) -> Heads:
    """x with each head's vectors scaled to length sqrt(scale): their dot products are scale times a cosine."""
    square_length = at_least_float32(x).square().sum(dim=-1, keepdim=True)
    factor = at_least_float32(scale).sqrt()[:, None] * torch.rsqrt(square_length + EPS)
    return x * factor.to(x.dtype)


@kernels.operator("to_heads")
def _split_heads(
    qkv: Tensor, scale: Tensor, cos: Tensor, sin: Tensor, by_token: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from lediflow.nn.kernels import fused as kernel

    q, k, v, factors = empty_outputs(qkv, len(scale), by_token)
    wrap_triton(kernel.split_and_rotate)[programs(q)](
        qkv.contiguous(), scale, cos.contiguous(), sin.contiguous(), q, k, v, factors,
        *kernels.strides(q), *sizes(q), EPS=EPS, HEAD_DIM=q.shape[-1], BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return q, k, v, factors


@kernels.operator("to_heads_backward")
def _split_heads_backward(
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
    from lediflow.nn.kernels import fused as kernel

    dq, dk, dv = (kernels.by_position(x) for x in (dq, dk, dv))
    dqkv, products = empty_gradients(q, factors)
    wrap_triton(kernel.split_and_rotate_gradient)[programs(q)](
        q, k, dq, dk, dv, scale, cos.contiguous(), sin.contiguous(), factors, dqkv, products,
        *kernels.strides(q, dq, dk, dv), *sizes(q),
        HEAD_DIM=q.shape[-1], BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return dqkv, products


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, scale, cos, sin, _ = inputs
    q, k, _, factors = output
    ctx.save_for_backward(q, k, scale, cos, sin, factors)


def _differentiate(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, scale, cos, sin, factors = ctx.saved_tensors
    dqkv, products = _split_heads_backward(q, k, dq, dk, dv, scale, cos, sin, factors)
    by_scale = products.sum(dim=(0, 1, 2, 3)) / (2 * scale)
    return dqkv, by_scale.to(scale.dtype), None, None, None


_split_heads.register_autograd(_differentiate, setup_context=_save)


def empty_outputs(qkv: Tensor, heads: int, by_token: bool) -> tuple[Tensor, ...]:
    """Uninitialised q, k and v, with each token's heads contiguous or each head's tokens, and length factors."""
    batch, height, width, channels = qkv.shape
    head_dim = channels // (3 * heads)
    if by_token:
        q, k, v = (qkv.new_empty(batch, height, width, heads, head_dim) for _ in range(3))
    else:
        q, k, v = (
            qkv.new_empty(batch, heads, height, width, head_dim).permute(0, 2, 3, 1, 4) for _ in range(3)
        )
    return q, k, v, qkv.new_empty((batch, height, width, 2, heads), dtype=torch.float32)


def empty_gradients(q: Tensor, factors: Tensor) -> tuple[Tensor, ...]:
    """Uninitialised gradient of the projection's output, and products y . dy."""
    batch, height, width, heads, head_dim = q.shape
    return q.new_empty((batch, height, width, 3 * heads * head_dim)), torch.empty_like(factors)


def programs(x: Tensor) -> tuple[int]:
    """Grid of programs: one for each block of tokens of each head."""
    batch, height, width, heads, _ = x.shape
    return (-(-batch * height * width // BLOCK) * heads,)


def sizes(x: Tensor) -> tuple[int, int, int]:
    """Number of tokens in the batch, of positions in an image, and of heads."""
    batch, height, width, heads, _ = x.shape
    return batch * height * width, height * width, heads
