"""Self-attention over the token grid: global or neighborhood, with cosine similarity.

Queries and keys are scaled to length sqrt(s), where s is learned per head and initialised to 10, so a logit is
s cos(angle). Then the rotary position embedding is applied. The block is residual and its last projection is
initialised to zero. Dropout, if any, is applied to the output of attention, before that projection.
Source: HDiT, arXiv:2401.11605; dropout as in k-diffusion's `image_transformer_v2`.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from lediflow.nn.dropout import DropsEntries
from lediflow.nn.heads import to_heads
from lediflow.nn.neighborhood import check_route, neighborhood_attention
from lediflow.nn.norms import norm_for
from lediflow.nn.rope import Rotation
from lediflow.nn.shapes import Condition, Heads, SampleKeys, Tokens
from lediflow.nn.specs import LevelSpec

INITIAL_SCALE = 10.0


def global_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """Every token attends to every token; logits are not scaled by 1 / sqrt(head_dim)."""
    height = q.shape[1]
    q, k, v = (rearrange(x, "b h w heads d -> b heads (h w) d") for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return rearrange(mixed, "b heads (h w) d -> b h w heads d", h=height)


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
        qkv = self.qkv_proj(self.norm(x, condition))
        mixed = self.attend(*to_heads(qkv, self.scale, positions, self.head_dim))
        return x + self.out_proj(self.dropped(rearrange(mixed, "b h w heads d -> b h w (heads d)"), keys))

    def attend(self, q: Heads, k: Heads, v: Heads) -> Heads:
        if self.kernel_size is None:
            return global_attention(q, k, v)
        return neighborhood_attention(q, k, v, self.kernel_size, scale=1.0, route=self.route)
