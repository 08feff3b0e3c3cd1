"""Gated feed-forward block: x + W_down (a * gelu(g)), (a, g) = W_up norm(x).

The block is residual and its last projection starts at zero. It serves tokens and the mapping network alike.
Source: GEGLU, Shazeer, arXiv:2002.05202.
"""

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.nn.geglu import geglu
from lediflow.nn.norms import norm_for
from lediflow.nn.shapes import Condition


class FeedForward(nn.Module):
    def __init__(self, width: int, d_ff: int, condition_width: int | None = None) -> None:
        super().__init__()
        self.norm = norm_for(width, condition_width)
        self.up_proj = nn.Linear(width, 2 * d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, width, bias=False)
        nn.init.zeros_(self.down_proj.weight)

    def forward(
        self, x: Float[Tensor, "*batch channels"], condition: Condition | None = None
    ) -> Float[Tensor, "*batch channels"]:
        return x + self.down_proj(geglu(self.up_proj(self.norm(x, condition))))
