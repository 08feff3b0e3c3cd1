"""Squared MMD of two sets by any kernel, with a confidence interval, on any number of ranks to the same bits.

    MMD^2(X, Y) = E k(x, x') + E k(y, y') - 2 E k(x, y)

Biased: the mean within a set includes k(x, x); never negative. Unbiased: it excludes them; its expectation is zero for
two samples of one distribution, so it can be negative. The standard error is that of the delete-one jackknife (Efron &
Stein 1981) of the unbiased estimate, over both sets: leaving out a row changes the sums by that row's sums, so it needs
no further kernel values.

Each pair of tiles is computed once, by one rank, always in the same orientation; its sums go to their places in a table
(rows of one set x tiles of the other) that is zero elsewhere. The tables of all ranks are added, which is exact, and
then summed along their rows in a fixed order. So the bits do not depend on the number of ranks.

`Gaussian` omits a constant 1: kernel values of embeddings are all close to 1 and nearly cancel in the MMD, so
k - 1 = expm1(.) is summed instead. The ones cancel exactly, and two digits are gained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.tiles import TILE, Rows, check_count, check_sets, place, tiles, visits

RowBlock = tuple[int, Float[Tensor, "height dim"]]
FEWEST = 3  # rows of a set: the jackknife leaves one out, and the unbiased mean needs two of the rest


class Kernel(Protocol):
    """A kernel k(a, b), minus a constant."""

    def __call__(
        self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
    ) -> Float[Tensor, "rows columns"]: ...

    def diagonal(self, a: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        """k(a, a) for each row, minus the same constant."""


@dataclass(frozen=True)
class Gaussian:
    """exp(-|a - b|^2 / (2 sigma^2)) - 1; CMMD has sigma = 10."""

    sigma: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma={self.sigma}: the width of a Gaussian kernel is a positive number")

    def __call__(
        self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
    ) -> Float[Tensor, "rows columns"]:
        norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
        squared_distances = norms.addmm_(a, b.T, alpha=-2).clamp_(min=0)
        return squared_distances.div_(-2 * self.sigma**2).expm1_()

    def diagonal(self, a: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        return a.new_zeros(len(a))


@dataclass(frozen=True)
class Polynomial:
    """(a.b / dim + 1)^degree; KID has degree 3 (Bińkowski et al. 2018, arXiv:1801.01401)."""

    degree: int = 3

    def __call__(
        self, a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
    ) -> Float[Tensor, "rows columns"]:
        return (a @ b.T).div_(a.shape[1]).add_(1).pow_(self.degree)

    def diagonal(self, a: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
        return (a.square().sum(dim=1) / a.shape[1] + 1) ** self.degree


class Within(NamedTuple):
    """Kernel sums of each row of a set with its own set."""

    others: Float[Tensor, " n"]  # sum over the other rows
    itself: Float[Tensor, " n"]  # k(a, a)


class Across(NamedTuple):
    """Kernel sums of each row of one set with the other set."""

    x: Float[Tensor, " n"]
    y: Float[Tensor, " m"]


class KernelSums(NamedTuple):
    x: Within
    y: Within
    across: Across


def kernel_sums(x: Rows, y: Rows, kernel: Kernel, group: Group) -> KernelSums:
    """Kernel sums of all rows in float64, on every rank's CPU; computed on the device of the embeddings."""
    check_sets(x, y, group)
    return KernelSums(within(x, kernel, group), within(y, kernel, group), across(x, y, kernel, group))


def within(rows: Rows, kernel: Kernel, group: Group) -> Within:
    """Sums within a set. The kernel is symmetric, so half of the pairs of tiles are computed."""
    own = list(tiles(rows))
    others, itself = tile_sums(rows, rows), zeros(rows, rows.total)
    for number, values in own:
        itself[place(number, values)] = kernel.diagonal(values)
    for (i, a), (j, b) in pairs_once(own, rows, group):
        values = kernel(a, b)
        if i == j:
            others[place(i, a), j] = values.fill_diagonal_(0).sum(dim=1)
        else:
            others[place(i, a), j] = values.sum(dim=1)
            others[place(j, b), i] = values.sum(dim=0)
    return Within(group.sum(others).sum(dim=1), group.sum(itself))


def pairs_once(own: list[RowBlock], rows: Rows, group: Group) -> Iterator[tuple[RowBlock, RowBlock]]:
    """This rank's share of the pairs of tiles of one set, lower number first, each pair on one rank only.

    Pair (i, j), i <= j, goes to the owner of i if i + j is even, else to the owner of j.
    """
    for block in visits(rows, group):
        for other in tiles(block):
            for mine in own:
                low, high = min(mine, other, key=number_of), max(mine, other, key=number_of)
                if (mine is low or mine[0] == other[0]) == ((low[0] + high[0]) % 2 == 0):
                    yield low, high


def number_of(tile: RowBlock) -> int:
    return tile[0]


def across(x: Rows, y: Rows, kernel: Kernel, group: Group) -> Across:
    """Sums between two sets. The owner of x's tile computes a pair."""
    own = list(tiles(x))
    by_x, by_y = tile_sums(x, y), tile_sums(y, x)
    for block in visits(y, group):
        for j, b in tiles(block):
            for i, a in own:
                values = kernel(a, b)
                by_x[place(i, a), j] = values.sum(dim=1)
                by_y[place(j, b), i] = values.sum(dim=0)
    return Across(group.sum(by_x).sum(dim=1), group.sum(by_y).sum(dim=1))


def tile_sums(rows: Rows, others: Rows) -> Float[Tensor, "n tiles"]:
    return zeros(rows, rows.total, -(-others.total // TILE))


def zeros(rows: Rows, *shape: int) -> Float[Tensor, "..."]:
    """Zeros on the device of the embeddings, so that no pair of tiles waits for a copy."""
    return torch.zeros(shape, dtype=torch.float64, device=rows.values.device)


@dataclass(frozen=True)
class Estimate:
    """The squared MMD, and each row's influence: its jackknife pseudo-value minus the estimate."""

    biased: float
    unbiased: float
    influence_x: Float[Tensor, " n"]
    influence_y: Float[Tensor, " m"]

    @property
    def standard_error(self) -> float:
        """Standard error of the unbiased estimate."""
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
