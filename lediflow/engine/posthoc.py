"""Averages of any width, made after the run from averages that were stored along it.

A power-function average stored at t holds the weights' history with the density (gamma + 1) tau^gamma / t^(gamma + 1)
on [0, t]. The density of the wanted width is fitted by a sum of the stored ones, least squares over [0, T] under the
condition that it is a density; the same sum of the stored weights is the average.
Source: Karras et al. 2024, arXiv:2312.02696, section 3.2 and its appendix on post-hoc EMA.
"""

from __future__ import annotations

import math
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
    """How much of each stored average the wanted one is made of; sums to 1, or still weights would shrink."""
    overlaps, wishes = _normal_equations(stored, wanted)
    ones = np.ones((len(stored), 1))
    bordered = np.block(
        [[overlaps, ones], [ones.T, np.zeros((1, 1))]]
    )  # the last unknown: Lagrange's multiplier
    return np.linalg.lstsq(bordered, np.append(wishes, 1.0), rcond=1e-12)[0][:-1]


def misfit(stored: Sequence[Profile], wanted: Profile, shares: Float64[np.ndarray, " stored"]) -> float:
    """Norm of the difference between the wanted density and its fit, as a share of the wanted one's norm."""
    overlaps, wishes = _normal_equations(stored, wanted)
    unit = Profile(wanted.gamma, 1.0)
    whole = overlap(unit, unit)
    rest = whole - 2 * shares @ wishes + shares @ overlaps @ shares
    return math.sqrt(max(rest, 0.0) / whole)


def _normal_equations(
    stored: Sequence[Profile], wanted: Profile
) -> tuple[Float64[np.ndarray, "stored stored"], Float64[np.ndarray, " stored"]]:
    """Overlaps of the stored densities with each other and with the wanted one, in units of its end: numbers near 1."""
    rows = [Profile(one.gamma, one.images_seen / wanted.images_seen) for one in stored]
    overlaps = np.array([[overlap(left, right) for right in rows] for left in rows])
    return overlaps, np.array([overlap(one, Profile(wanted.gamma, 1.0)) for one in rows])


def overlap(left: Profile, right: Profile) -> float:
    """The integral of the product of two densities, which end at their own times."""
    a, b = left.gamma, right.gamma
    end = min(left.images_seen, right.images_seen)
    both = (end / left.images_seen) ** a * (end / right.images_seen) ** b
    return (a + 1) * (b + 1) / (a + b + 1) * both * end / (left.images_seen * right.images_seen)
