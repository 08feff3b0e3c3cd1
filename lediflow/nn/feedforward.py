"""Gated feed-forward block: x + W_down (a * gelu(g)), (a, g) = W_up norm(x).

The block is residual and its last projection is initialised to zero. Levels and the mapping network both use it.
Dropout, if any, is applied to the gated channels, before that projection.
Sources: GEGLU, Shazeer, arXiv:2002.05202; dropout as in k-diffusion's `image_transformer_v2`.
"""

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.nn.dropout import DropsEntries
from lediflow.nn.geglu import geglu
from lediflow.nn.norms import norm_for
from lediflow.nn.shapes import Condition, SampleKeys


class FeedForward(DropsEntries):
    """Residual gated feed-forward block with an optional condition."""

    def __init__(
        self, width: int, d_ff: int, condition_width: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = norm_for(width, condition_width)
        self.up_proj = nn.Linear(width, 2 * d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, width, bias=False)
        nn.init.zeros_(self.down_proj.weight)

    def forward(
        self,
        x: Float[Tensor, "*batch channels"],
        condition: Condition | None = None,
        keys: SampleKeys | None = None,
    ) -> Float[Tensor, "*batch channels"]:
        gated = geglu(self.up_proj(self.norm(x, condition)))
        return x + self.down_proj(self.dropped(gated, keys))
