"""From sums of a kernel to the squared MMD and how sure it is.

    MMD^2(X, Y) = E k(x, x') + E k(y, y') - 2 E k(x, y)

Biased: each set's mean includes k(x, x); never negative. Unbiased: it does not; zero on average for two samples of one
distribution, so it may come out below zero. The standard error is the delete-one jackknife's (Efron & Stein 1981) of
the unbiased estimate, over both sets: leaving a row out changes the sums by that row's sums, so it costs nothing more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from jaxtyping import Float
from torch import Tensor

from lediflow.evaluation.distances.checks import check_count
from lediflow.evaluation.distances.sums import KernelSums, Within

FEWEST = 3  # rows of a set: the jackknife leaves one out, and the unbiased mean of the rest needs two


@dataclass(frozen=True)
class Estimate:
    """The squared MMD, and each row's influence: its jackknife pseudo-value less the estimate."""

    biased: float
    unbiased: float
    influence_x: Float[Tensor, " n"]
    influence_y: Float[Tensor, " m"]

    @property
    def standard_error(self) -> float:
        """Of the unbiased estimate."""
        return math.sqrt(sum(mean_variance(x) for x in (self.influence_x, self.influence_y)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal confidence interval of the unbiased estimate."""
        reach = NormalDist().inv_cdf(0.5 + level / 2) * self.standard_error
        return self.unbiased - reach, self.unbiased + reach


def mean_variance(influence: Float[Tensor, " n"]) -> float:
    """Variance of the mean of independent influences."""
    return (influence.var() / len(influence)).item()


def biased_mmd(sums: KernelSums) -> float:
    n, m = len(sums.across.x), len(sums.across.y)
    x, y = (total(rows.others) + total(rows.itself) for rows in (sums.x, sums.y))
    return x / n**2 + y / m**2 - 2 * total(sums.across.x) / (n * m)


def unbiased_mmd(sums: KernelSums) -> float:
    n, m = len(sums.across.x), len(sums.across.y)
    x, y = total(sums.x.others), total(sums.y.others)
    return x / (n * (n - 1)) + y / (m * (m - 1)) - 2 * total(sums.across.x) / (n * m)


def estimate(sums: KernelSums, scale: float = 1.0) -> Estimate:
    """Both estimates and the influences, times `scale`."""
    check_count(len(sums.across.x), len(sums.across.y), fewest=FEWEST)
    value = unbiased_mmd(sums)
    x = influences(sums.x, sums.across.x, len(sums.across.y), other=mean_of_pairs(sums.y), value=value)
    y = influences(sums.y, sums.across.y, len(sums.across.x), other=mean_of_pairs(sums.x), value=value)
    return Estimate(scale * biased_mmd(sums), scale * value, scale * x, scale * y)


def influences(
    own: Within, across: Float[Tensor, " n"], others: int, *, other: float, value: float
) -> Float[Tensor, " n"]:
    """(n - 1) (value - value without the row), for each row of one set."""
    n = len(across)
    pairs = (total(own.others) - 2 * own.others) / ((n - 1) * (n - 2))
    between = (total(across) - across) / ((n - 1) * others)
    return (n - 1) * (value - (pairs + other - 2 * between))


def mean_of_pairs(rows: Within) -> float:
    n = len(rows.others)
    return total(rows.others) / (n * (n - 1))


def total(values: Float[Tensor, " n"]) -> float:
    """The sum, rounded once."""
    return math.fsum(values.tolist())
