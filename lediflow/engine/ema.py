"""Exponential moving average of the weights, in float32, over whatever part of them this rank owns.

Decay is given per image, as a half-life on the image clock, and ramps up with the run's age so that the first,
poor weights are forgotten (as in EDM2, Karras et al. 2024): half-life = min(asked, ramp * images seen).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(kw_only=True)
class EMAConfig:
    half_life_images: int = 50_000  # longer: smoother weights that lag further behind
    ramp: float = 0.1  # cap on the half-life as a share of the images seen so far


def decay_for(config: EMAConfig, images_seen: int, batch: int) -> float:
    """Weight of the old average after a batch of `batch` images, in [0, 1)."""
    half_life = min(config.half_life_images, config.ramp * images_seen)
    return 0.5 ** (batch / half_life) if half_life > 0 else 0.0


class WeightAverage:
    """The average of some tensors that an optimizer updates in place."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [weight.detach() for weight in weights]
        self.average = [weight.detach().float().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        if self.average:
            torch._foreach_lerp_(self.average, self.weights, 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within, the weights hold the average (and the average holds the weights)."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for weight, average in zip(self.weights, self.average, strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)
