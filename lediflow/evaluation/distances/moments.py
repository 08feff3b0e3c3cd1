"""CMMD from two moments of each set.

For unit vectors and sigma = 10, k(a, b) = e^(-1/100) exp(a.b / 100), and the mean of (a.b)^p over two sets is the inner
product of their mean p-fold outer products M_p. Hence

    CMMD = 1000 e^(-1/100) sum_{p >= 1} |M_p(X) - M_p(Y)|^2 / (100^p p!)

of which the first two terms are kept: M_1 the mean embedding, M_2 the mean outer product. The third term's size, with
all that follow, is the error bound: at most 6.7e-4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

WEIGHT = 1000.0 * math.exp(-1 / 100)  # before the sum over p
TAIL = math.fsum(1 / (100**p * math.factorial(p)) for p in range(3, 9))  # the terms dropped, but for 1e-23
BLOCKS = 4  # of the second moment's sides: it is symmetric, and 10 of 16 blocks are all of it


class Distance(NamedTuple):
    """The exact value lies between `value` and `value + error_bound`."""

    value: float
    error_bound: float


@dataclass(frozen=True)
class Moments:
    """Sums over some embeddings."""

    count: float
    first: Float[Tensor, " dim"]
    second: Float[Tensor, "dim dim"]  # its upper triangle of blocks; what lies below is zero


def biased(x: Moments, y: Moments) -> Distance:
    """Two terms of the CMMD, and the most that the dropped ones can add."""
    first, second = difference(x, y)
    # unit vectors: (a.b)^p <= (a.b)^2 for p > 2, so |M_p| <= |M_2|; a difference is at most the sum
    dropped = sum(math.sqrt(squared_norm(z.second) / z.count**2) for z in (x, y)) ** 2 * TAIL
    return Distance(WEIGHT * (first / 100 + second / 20_000), WEIGHT * dropped)


def upper_blocks(dim: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the blocks of a square on and above its diagonal."""
    ends = [dim * place // BLOCKS for place in range(BLOCKS + 1)]
    sides = [slice(start, stop) for start, stop in pairwise(ends) if stop > start]
    return [(rows, columns) for place, rows in enumerate(sides) for columns in sides[place:]]


def squared_norm(upper: Float[Tensor, "dim dim"]) -> float:
    """Sum of squares of a symmetric matrix of which only the upper blocks are there."""
    squares = (
        upper[rows, columns].square().sum() * (1 if rows == columns else 2)
        for rows, columns in upper_blocks(len(upper))
    )
    return torch.stack(list(squares)).sum().item()


def difference(x: Moments, y: Moments) -> tuple[float, float]:
    """|M_1 - M_1'|^2 and |M_2 - M_2'|^2."""
    first = x.first / x.count - y.first.to(x.first) / y.count
    return first.square().sum().item(), squared_norm(x.second / x.count - y.second.to(x.second) / y.count)


def unbiased(x: Moments, y: Moments) -> float:
    """Two terms of the unbiased CMMD: where |a| = 1, a set's mean of (a.b)^p over pairs of two is known from all.

    (n |M_p|^2 - 1) / (n - 1) = |M_p|^2 - (1 - |M_p|^2) / (n - 1).
    """
    first, second = difference(x, y)
    for z in (x, y):
        first -= (1 - z.first.square().sum().item() / z.count**2) / (z.count - 1)
        second -= (1 - squared_norm(z.second) / z.count**2) / (z.count - 1)
    return WEIGHT * (first / 100 + second / 20_000)


def jackknife_variance(value: float, count: float, left: list[tuple[float, float]]) -> float:
    """From (embeddings left, value of those) without one group after the other, of any sizes."""
    ratios = [count / (count - rest) for rest, _ in left]
    pseudo = [ratio * value - (ratio - 1) * other for ratio, (_, other) in zip(ratios, left, strict=True)]
    centre = len(left) * value - math.fsum(rest / count * other for rest, other in left)
    squares = [(each - centre) ** 2 / (ratio - 1) for each, ratio in zip(pseudo, ratios, strict=True)]
    return math.fsum(squares) / len(left)
