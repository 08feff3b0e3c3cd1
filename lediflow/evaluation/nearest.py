"""Nearest neighbours between two sets of embeddings that are spread over the ranks.

Distances are float64 and made tile by tile; each pair of tiles is computed by the rank that owns the first, with the
same shapes whatever the number of ranks, and only smallest values are kept. No rank holds a matrix of all pairs.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b leaves some rounding where a = b. It is cut off there (`SAME_PLACE`): copies are at
distance 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.distances.rows import Rows, place, tiles, visits

# of |a|^2 + |b|^2: above float64's rounding in thousands of dimensions, at the precision of float32 features
SAME_PLACE = 1e-13


class PairOfTiles(NamedTuple):
    """One tile of a rank's own rows against one of any rank's."""

    own: slice  # where the tile's rows stand in the whole set
    other: slice
    squared: Float[Tensor, "rows columns"]  # distances


def pairs_of_tiles(rows: Rows, others: Rows, group: Group) -> Iterator[PairOfTiles]:
    """This rank's rows against all rows of another set; every rank must run through all of it."""
    for block in visits(others, group):
        for other_number, columns in tiles(block):
            other = place(other_number, columns)
            for number, own in tiles(rows):
                yield PairOfTiles(place(number, own), other, squared_distances(own, columns))


def squared_distances(
    a: Float[Tensor, "rows dim"], b: Float[Tensor, "columns dim"]
) -> Float[Tensor, "rows columns"]:
    """|a - b|^2 of every pair; 0 where rounding can tell no difference."""
    norms = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)[None, :]
    squared = torch.addmm(norms, a, b.T, alpha=-2)
    return torch.where(squared <= SAME_PLACE * norms, 0.0, squared)  # what is not a number stays so


def squared_radii(rows: Rows, group: Group, neighbors: int) -> Float[Tensor, " n"]:
    """From each row of a set to its k-th nearest other row, squared; every rank gets those of all rows."""
    nearest = torch.full((rows.total, neighbors), torch.inf, dtype=torch.float64, device=rows.values.device)
    for own, other, squared in pairs_of_tiles(rows, rows, group):
        if own == other:
            squared.fill_diagonal_(torch.inf)  # an image is not its own neighbour
        candidates = torch.cat([nearest[own], squared], dim=1)
        nearest[own] = candidates.topk(neighbors, largest=False).values  # in rising order
    return all_gather_rows(nearest[:, -1], rows, group)


class Nearest(NamedTuple):
    """Of each row of one set, in the other set."""

    distance: Float[Tensor, " n"]  # to the nearest
    number: Int64[Tensor, " n"]  # of the nearest; the lowest if several are there
    second: Float[Tensor, " n"]  # distance to the second nearest


def nearest_two(rows: Rows, others: Rows, group: Group) -> Nearest:
    """The two nearest of `others` to each row; every rank gets those of all rows."""
    unknown = torch.full((rows.total,), torch.inf, dtype=torch.float64, device=rows.values.device)
    first, second, number = unknown, unknown.clone(), unknown.clone()
    for own, other, squared in pairs_of_tiles(rows, others, group):
        column = squared.argmin(dim=1, keepdim=True)
        near, found = squared.gather(1, column).squeeze(1), column.squeeze(1) + other.start
        next_near = squared.scatter_(1, column, torch.inf).amin(dim=1)
        is_nearer = (near < first[own]) | ((near == first[own]) & (found < number[own]))
        loser = torch.maximum(near, first[own])
        second[own] = torch.stack([second[own], next_near, loser]).amin(dim=0)
        first[own] = torch.where(is_nearer, near, first[own])
        number[own] = torch.where(is_nearer, found.double(), number[own])  # exact: far below 2^53
    first, second, number = (all_gather_rows(values, rows, group) for values in (first, second, number))
    return Nearest(first.sqrt(), number.long(), second.sqrt())


def all_gather_rows(values: Float[Tensor, " n"], rows: Rows, group: Group) -> Float[Tensor, " n"]:
    """Each rank's values of its own rows, put together, on the CPU."""
    own = slice(rows.first, rows.first + len(rows.values))
    placed = torch.zeros_like(values)
    placed[own] = values[own]
    return group.sum(placed)
