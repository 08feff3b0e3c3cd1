"""Sums of a kernel over all pairs of embeddings, row by row: all that an MMD and its jackknife need.

A pair of tiles is computed once, by one rank, always in the same orientation; its sums go to their places in a table
(rows of the one set x tiles of the other) in which every other rank has zeros. The table is added up over the ranks,
which is exact, and then along its rows in one order. So the bits do not depend on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.distances.checks import check_sets
from lediflow.evaluation.distances.kernels import Kernel
from lediflow.evaluation.distances.rows import TILE, Rows, place, tiles, visits

Tile = tuple[int, Float[Tensor, "height dim"]]


class Within(NamedTuple):
    """Of each row of a set, with that set."""

    others: Float[Tensor, " n"]  # sum over the other rows
    itself: Float[Tensor, " n"]  # k(a, a)


class Across(NamedTuple):
    """Of each row of one set, summed over the other set's."""

    x: Float[Tensor, " n"]
    y: Float[Tensor, " m"]


class KernelSums(NamedTuple):
    x: Within
    y: Within
    across: Across


def kernel_sums(x: Rows, y: Rows, kernel: Kernel, group: Group) -> KernelSums:
    """Float64, on the CPU, of all rows on every rank; computed where the embeddings are."""
    check_sets(x, y, group)
    return KernelSums(within(x, kernel, group), within(y, kernel, group), across(x, y, kernel, group))


def within(rows: Rows, kernel: Kernel, group: Group) -> Within:
    """Half of the pairs of tiles are computed: the kernel is symmetric."""
    own = list(tiles(rows))
    others, itself = table(rows, rows), zeros(rows, rows.total)
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


def pairs_once(own: list[Tile], rows: Rows, group: Group) -> Iterator[tuple[Tile, Tile]]:
    """This rank's share of the pairs of tiles of one set, lower number first, each pair on one rank only.

    Of two tiles, the owner of the lower one has the pair where their numbers add up to an even number, else the other.
    """
    for block in visits(rows, group):
        for other in tiles(block):
            for mine in own:
                low, high = min(mine, other, key=number_of), max(mine, other, key=number_of)
                if (mine is low or mine[0] == other[0]) == ((low[0] + high[0]) % 2 == 0):
                    yield low, high


def number_of(tile: Tile) -> int:
    return tile[0]


def across(x: Rows, y: Rows, kernel: Kernel, group: Group) -> Across:
    """All pairs of tiles; the owner of x's has the pair."""
    own = list(tiles(x))
    by_x, by_y = table(x, y), table(y, x)
    for block in visits(y, group):
        for j, b in tiles(block):
            for i, a in own:
                values = kernel(a, b)
                by_x[place(i, a), j] = values.sum(dim=1)
                by_y[place(j, b), i] = values.sum(dim=0)
    return Across(group.sum(by_x).sum(dim=1), group.sum(by_y).sum(dim=1))


def table(rows: Rows, others: Rows) -> Float[Tensor, "n tiles"]:
    return zeros(rows, rows.total, -(-others.total // TILE))


def zeros(rows: Rows, *shape: int) -> Float[Tensor, "..."]:
    """Where the embeddings are: no pair of tiles waits for a copy to another device."""
    return torch.zeros(shape, dtype=torch.float64, device=rows.values.device)
