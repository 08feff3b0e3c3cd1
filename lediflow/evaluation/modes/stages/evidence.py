"""The measurements that a verdict is based on: MMDs with intervals, their differences and trend, losses, widths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

RISE = 0.1  # how much worse with more evaluations, as a share of the best, counts as worse

SolverSteps = tuple[str, int]  # solver, steps


class MmdInterval(NamedTuple):
    """An MMD with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.2f}" if abs(self.value) >= 1 else f"{self.value:.3f}"


ZERO = MmdInterval(0.0, 0.0, 0.0)


class Contribution(NamedTuple):
    """How much of the distance a stage adds, and the 95 % margin of that."""

    value: float
    margin: float

    @property
    def is_certain(self) -> bool:
        return self.value > self.margin


class Trend(NamedTuple):
    """MMD with z of training images: at the most evaluations, and the best at half as many or fewer."""

    best: MmdInterval
    best_nfe: float
    last: MmdInterval
    last_nfe: float

    @property
    def gets_worse(self) -> bool:
        change = difference(self.last, self.best)
        return change.is_certain and change.value >= RISE * max(self.best.value, 0.0)

    @property
    def does_not_improve(self) -> bool:
        return not difference(self.best, self.last).is_certain


class FlowLoss(NamedTuple):
    """The flow's last losses, and its lowest one on held-out images with the images seen then."""

    training: float
    held_out: float
    lowest: float
    lowest_at: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The measurements that a verdict is based on; None: not known."""

    # by source of z: (evaluations, MMD) by setting
    curves: Mapping[str, Mapping[SolverSteps, tuple[float, MmdInterval]]]
    real: MmdInterval | None = None  # photographs among themselves
    codec_floor: MmdInterval | None = None  # reconstructions against photographs
    vgl_training: float | None = None  # nats per entry
    vgl_held_out: float | None = None
    sigma: float | None = None  # typical, of the auxiliary model's prior on held-out images
    residual: float | None = None  # typical deviation of held-out images from the prior's mean
    prior_widening: float = 0.0
    prior_scale: float = 1.0
    sampler_images: int | None = None  # that the latent sampler was trained on
    flow_loss: FlowLoss | None = None


def difference(above: MmdInterval, below: MmdInterval) -> Contribution:
    return Contribution(above.value - below.value, math.hypot(above.reach, below.reach))
