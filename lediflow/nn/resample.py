"""Changes of the token grid: merge a block of tokens into one, split one into a block, and mix with a skip.

Both directions are a rearrangement and one linear map without bias; with a factor of 1 only the map remains.
Source: HDiT, arXiv:2401.11605.
"""

import torch
from einops import rearrange
from torch import nn

from lediflow.nn.shapes import Tokens


class TokenMerge(nn.Module):
    """Each factor x factor block of tokens becomes one token."""

    def __init__(self, in_width: int, out_width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(in_width * factor**2, out_width, bias=False)

    def forward(self, x: Tokens) -> Tokens:
        return self.proj(rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=self.factor, q=self.factor))


class TokenSplit(nn.Module):
    """Each token becomes a factor x factor block of tokens."""

    def __init__(self, in_width: int, out_width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.proj = nn.Linear(in_width, out_width * factor**2, bias=False)

    def forward(self, x: Tokens) -> Tokens:
        return rearrange(self.proj(x), "b h w (p q c) -> b (h p) (w q) c", p=self.factor, q=self.factor)


class TokenSplitWithSkip(TokenSplit):
    """A split, then a weighted mean with the finer level's tokens; the weight is learned, initially 1/2."""

    def __init__(self, in_width: int, out_width: int, factor: int = 2) -> None:
        super().__init__(in_width, out_width, factor)
        self.fac = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tokens, skip: Tokens) -> Tokens:  # type: ignore[override]
        split = super().forward(x)
        return torch.lerp(skip, split, self.fac.to(split.dtype))
