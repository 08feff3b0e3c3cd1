"""Averages of any width, made after the run from averages that were stored along it.

A power-function average stored at t holds the weights' history with the density (gamma + 1) tau^gamma / t^(gamma + 1)
on [0, t]. The density of the wanted width is fitted by a sum of the stored ones, least squares over [0, T]; the same
sum of the stored weights is the average.
Source: Karras et al. 2024, arXiv:2312.02696, section 3.2 and its appendix on post-hoc EMA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from lediflow.engine.ema import gamma_of


class Profile(NamedTuple):
    """One average: the exponent of its density, and the images seen when it was stored."""

    gamma: float
    images_seen: float


def profile(sigma_rel: float, images_seen: float) -> Profile:
    return Profile(gamma_of(sigma_rel), images_seen)


def coefficients(stored: Sequence[Profile], wanted: Profile) -> Float64[np.ndarray, " stored"]:
    """How much of each stored average the wanted one is made of."""
    unit = wanted.images_seen  # of time, so that numbers stay near 1
    rows = [Profile(one.gamma, one.images_seen / unit) for one in stored]
    target = Profile(wanted.gamma, 1.0)
    overlaps = np.array([[overlap(left, right) for right in rows] for left in rows])
    wishes = np.array([overlap(one, target) for one in rows])
    return np.linalg.lstsq(overlaps, wishes, rcond=1e-12)[0]


def overlap(left: Profile, right: Profile) -> float:
    """The integral of the product of two densities, which end at their own times."""
    a, b = left.gamma, right.gamma
    end = min(left.images_seen, right.images_seen)
    both = (end / left.images_seen) ** a * (end / right.images_seen) ** b
    return (a + 1) * (b + 1) / (a + b + 1) * both * end / (left.images_seen * right.images_seen)
