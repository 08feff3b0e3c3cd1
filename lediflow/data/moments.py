"""Mean and standard deviation of latents per channel, gathered shard by shard in float64.

For stochastic latents they are those of draws: E[z^2] = mean^2 + variance.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from einops import reduce
from jaxtyping import Float64
from torch import Tensor

from lediflow.codecs import Latents


class Moments(NamedTuple):
    """Sums over some latents."""

    elements: int  # per channel
    total: Float64[Tensor, " channels"]
    squares: Float64[Tensor, " channels"]

    @classmethod
    def of(cls, latents: Latents) -> "Moments":
        mean = latents.mean.double().cpu()
        squares = mean.square()
        if latents.logvar is not None:
            squares = squares + latents.logvar.double().cpu().exp()
        total = reduce(mean, "b c h w -> c", "sum")
        return cls(mean[:, 0].numel(), total, reduce(squares, "b c h w -> c", "sum"))

    def to_json(self) -> dict[str, list[float]]:
        return {
            "elements": [float(self.elements)],
            "total": self.total.tolist(),
            "squares": self.squares.tolist(),
        }

    @classmethod
    def from_json(cls, lists: dict[str, list[float]]) -> "Moments":
        total, squares = (torch.tensor(lists[name], dtype=torch.float64) for name in ("total", "squares"))
        return cls(int(lists["elements"][0]), total, squares)


def merged(moments: Iterable[Moments]) -> Moments:
    """Sums over all."""
    elements, totals, squares = zip(*moments, strict=True)
    return Moments(sum(elements), torch.stack(totals).sum(0), torch.stack(squares).sum(0))


def channel_statistics(moments: Moments) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel."""
    mean = moments.total / moments.elements
    variance = (moments.squares / moments.elements - mean.square()).clamp_min(0)
    return {"mean": mean.tolist(), "std": variance.sqrt().tolist()}
