"""CMMD: squared maximum mean discrepancy (MMD) of two sets of embeddings with a Gaussian kernel.

    MMD^2(X, Y) = E k(x, x') + E k(y, y') - 2 E k(x, y),    k(a, b) = exp(-|a - b|^2 / (2 sigma^2))

On unit-norm CLIP ViT-L/14@336 embeddings with sigma = 10 and scale = 1000 this is CMMD (Jayasumana et al.
2023, arXiv:2401.09603); on other embeddings it is an MMD and is named after them (`metrics.metric_name`).

Exact (`cmmd`, `cmmd_estimate`): float64, over all pairs, in blocks, on any number of ranks.

In one pass (`StreamingCMMD`), in memory independent of the number of images, from two moments of each set. For unit
vectors and sigma = 10, k(a, b) = e^(-1/100) exp(a.b / 100), and the mean of (a.b)^p over two sets is the inner product
of their mean p-fold outer products M_p. Hence

    CMMD = 1000 e^(-1/100) sum_{p >= 1} |M_p(X) - M_p(Y)|^2 / (100^p p!)

The first two terms are kept: M_1 is the mean embedding, M_2 the mean outer product. The error bound, at most 6.7e-4, is
the most that all further terms can add.

Moments are kept separately for groups of batches; leaving out one group at a time gives a standard error
(delete-a-group jackknife; Busing et al. 1999 for groups of different sizes). Moments of ranks and machines add up. If
all batches of a group belong to one rank, in order, the other ranks add zeros, and the bits are those of a single rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.mmd import Estimate, Gaussian, biased_mmd, estimate, kernel_sums, unbiased_mmd
from lediflow.evaluation.tiles import Rows, check_count, whole

SIGMA, SCALE = 10.0, 1000.0
WEIGHT = 1000.0 * math.exp(-1 / 100)  # before the sum over p
TAIL = math.fsum(1 / (100**p * math.factorial(p)) for p in range(3, 9))  # the dropped terms, up to 1e-23
BLOCKS = 4  # per side of the second moment, which is symmetric: 10 of 16 blocks suffice
GROUPS = 20  # of batches; the standard error then has a relative error of about 16 %


def cmmd(
    x: Float[Tensor | np.ndarray, "n dim"],
    y: Float[Tensor | np.ndarray, "m dim"],
    *,
    sigma: float = SIGMA,
    scale: float = SCALE,
    unbiased: bool = False,
) -> float:
    """scale * MMD^2 of the embeddings as given (not normalised again), on the device they are on.

    Biased: the mean within a set includes k(x, x) = 1; never negative. Unbiased: it excludes them; its expectation is
    zero for two samples of one distribution, so it can be negative.
    """
    check_count(len(x), len(y), fewest=2 if unbiased else 1)
    sums = kernel_sums(whole(torch.as_tensor(x)), whole(torch.as_tensor(y)), Gaussian(sigma), Group())
    return scale * (unbiased_mmd(sums) if unbiased else biased_mmd(sums))


def cmmd_estimate(x: Rows, y: Rows, group: Group, *, sigma: float = SIGMA, scale: float = SCALE) -> Estimate:
    """Biased and unbiased value with a confidence interval, of sets spread over the ranks; same bits on any number."""
    return estimate(kernel_sums(x, y, Gaussian(sigma), group), scale)


class Distance(NamedTuple):
    """The exact value lies between `value` and `value + error_bound`."""

    value: float
    error_bound: float


@dataclass(frozen=True)
class Moments:
    """Sums over some embeddings."""

    count: float
    first: Float[Tensor, " dim"]
    second: Float[Tensor, "dim dim"]  # upper triangle of blocks; zero below


def biased(x: Moments, y: Moments) -> Distance:
    """Two terms of the CMMD, and the most that the dropped terms can add."""
    first, second = difference(x, y)
    # unit vectors: (a.b)^p <= (a.b)^2 for p > 2, so |M_p| <= |M_2|; a difference is at most the sum
    dropped = sum(math.sqrt(squared_norm(z.second) / z.count**2) for z in (x, y)) ** 2 * TAIL
    return Distance(WEIGHT * (first / 100 + second / 20_000), WEIGHT * dropped)


def upper_blocks(dim: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the blocks on and above the diagonal of a square matrix."""
    ends = [dim * place // BLOCKS for place in range(BLOCKS + 1)]
    sides = [slice(start, stop) for start, stop in pairwise(ends) if stop > start]
    return [(rows, columns) for place, rows in enumerate(sides) for columns in sides[place:]]


def squared_norm(upper: Float[Tensor, "dim dim"]) -> float:
    """Sum of squares of a symmetric matrix, of which only the upper blocks are stored."""
    squares = (
        upper[rows, columns].square().sum() * (1 if rows == columns else 2)
        for rows, columns in upper_blocks(len(upper))
    )
    return torch.stack(list(squares)).sum().item()


def difference(x: Moments, y: Moments) -> tuple[float, float]:
    """|M_1 - M_1'|^2 and |M_2 - M_2'|^2; ValueError for sets of different dimensions."""
    if x.first.shape != y.first.shape:
        raise ValueError(
            f"cannot compare embeddings of dimensions {len(x.first)} and {len(y.first)}; use one feature extractor for "
            "both sets"
        )
    first = x.first / x.count - y.first.to(x.first) / y.count
    return first.square().sum().item(), squared_norm(x.second / x.count - y.second.to(x.second) / y.count)


def unbiased(x: Moments, y: Moments) -> float:
    """Two terms of the unbiased CMMD: for |a| = 1, the mean of (a.b)^p over distinct pairs follows from all pairs.

    (n |M_p|^2 - 1) / (n - 1) = |M_p|^2 - (1 - |M_p|^2) / (n - 1).
    """
    first, second = difference(x, y)
    for z in (x, y):
        first -= (1 - z.first.square().sum().item() / z.count**2) / (z.count - 1)
        second -= (1 - squared_norm(z.second) / z.count**2) / (z.count - 1)
    return WEIGHT * (first / 100 + second / 20_000)


def jackknife_variance(value: float, count: float, left: list[tuple[float, float]]) -> float:
    """Jackknife variance from (embeddings left, their value) with one group left out at a time; groups of any sizes."""
    ratios = [count / (count - rest) for rest, _ in left]
    pseudo = [ratio * value - (ratio - 1) * other for ratio, (_, other) in zip(ratios, left, strict=True)]
    centre = len(left) * value - math.fsum(rest / count * other for rest, other in left)
    squares = [(each - centre) ** 2 / (ratio - 1) for each, ratio in zip(pseudo, ratios, strict=True)]
    return math.fsum(squares) / len(left)


class StreamingCMMD:
    """Moments of one set of unit-norm embeddings; `distance` compares two sets."""

    # accepts float16 embeddings, which change the value by a relative 2e-5, but not features without normalisation
    NORM_TOLERANCE = 1e-3

    def __init__(self, dim: int, device: torch.device | str = "cpu", groups: int = GROUPS):
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.count = torch.zeros(groups, **options)
        self.first = torch.zeros(groups, dim, **options)
        self.second = torch.zeros(groups, dim, dim, **options)
        self.updates = 0

    @property
    def groups(self) -> int:
        return len(self.count)

    @torch.no_grad()  # moments of embeddings with gradients would keep the graph of every batch
    def update(self, x: Float[Tensor | np.ndarray, "batch dim"], piece: int | None = None) -> Self:
        """Add embeddings to the group of batch number `piece`; without a number, batches go to the groups in turn."""
        x = torch.as_tensor(x)
        self.check(x)
        group = (self.updates if piece is None else piece) % self.groups
        self.updates += 1
        x = x.to(self.first)
        self.count[group] += len(x)
        self.first[group] += x.sum(dim=0)
        for rows, columns in upper_blocks(x.shape[1]):
            self.second[group, rows, columns].addmm_(x[:, rows].T, x[:, columns])
        return self

    def merge(self, other: StreamingCMMD) -> Self:
        """Add another set's embeddings to this one."""
        if self.first.shape != other.first.shape:
            raise ValueError(
                f"moments of {tuple(self.first.shape)} and {tuple(other.first.shape)} (groups, dim) cannot be merged; "
                "make both with the same extractor and number of groups"
            )
        for mine, theirs in zip(self.tensors().values(), other.tensors().values(), strict=True):
            mine += theirs.to(mine)
        return self

    def reduce(self, group: Group) -> Self:
        """Sum the moments over ranks in one exchange; every rank gets the result."""
        packed = group.sum(torch.cat([tensor.flatten() for tensor in self.tensors().values()]))
        sizes = [tensor.numel() for tensor in self.tensors().values()]
        for mine, summed in zip(self.tensors().values(), packed.split(sizes), strict=True):
            mine.copy_(summed.view_as(mine))
        return self

    def distance(self, other: StreamingCMMD) -> Distance:
        """The biased CMMD between the two sets, and the most that the dropped terms can add to it."""
        return biased(self.moments(), other.moments())

    def unbiased_distance(self, other: StreamingCMMD) -> Distance:
        """The unbiased CMMD; the exact value differs by at most `error_bound`, in either direction."""
        x, y = self.moments(), other.moments()
        check_count(int(x.count), int(y.count), fewest=2)
        below = WEIGHT * TAIL * (1 / (x.count - 1) + 1 / (y.count - 1))
        return Distance(unbiased(x, y), max(biased(x, y).error_bound, below))

    def standard_error(self, other: StreamingCMMD) -> float:
        """Standard error of the unbiased distance, by leaving out one group of either set at a time."""
        x, y = self.moments(), other.moments()
        value = unbiased(x, y)
        variances = [
            jackknife_variance(value, x.count, [(z.count, unbiased(z, y)) for z in self.without_groups()]),
            jackknife_variance(value, y.count, [(z.count, unbiased(x, z)) for z in other.without_groups()]),
        ]
        return math.sqrt(sum(variances))

    def interval(self, other: StreamingCMMD, level: float = 0.95) -> tuple[float, float]:
        """Normal confidence interval of the unbiased distance."""
        value, reach = self.unbiased_distance(other).value, NormalDist().inv_cdf(0.5 + level / 2)
        error = self.standard_error(other)
        return value - reach * error, value + reach * error

    def moments(self) -> Moments:
        """Moments of the whole set; ValueError if it is empty."""
        if not self.count.any():
            raise ValueError(
                "CMMD of an empty set of embeddings; call update with at least one batch on both sides"
            )
        return Moments(self.count.sum().item(), self.first.sum(dim=0), self.second.sum(dim=0))

    def without_groups(self) -> Iterator[Moments]:
        """Moments of the set without each of the groups that are not empty."""
        whole = self.moments()
        if whole.count - self.count.max().item() < 2:
            raise ValueError(
                f"{self.count.max():.0f} of {whole.count:.0f} embeddings are in one group: a jackknife leaves that "
                "out, and at least 2 must stay; add them in smaller batches"
            )
        for count, first, second in zip(self.count.tolist(), self.first, self.second, strict=True):
            if count:
                yield Moments(whole.count - count, whole.first - first, whole.second - second)

    def tensors(self) -> dict[str, Tensor]:
        return {"count": self.count, "first": self.first, "second": self.second}

    def check(self, x: Tensor) -> None:
        """ValueError for embeddings of another dimension, or not of unit norm."""
        dim = self.first.shape[1]
        if x.ndim != 2 or x.shape[1] != dim:
            raise ValueError(
                f"embeddings of shape {tuple(x.shape)} for a StreamingCMMD of dim {dim}; pass (batch, {dim})"
            )
        worst = (x.double().norm(dim=1) - 1).abs().amax().item() if len(x) else 0.0
        if not worst <= self.NORM_TOLERANCE:
            raise ValueError(
                f"embedding norms are off 1 by up to {worst:.3g}; normalise them first (features.unit)"
            )
