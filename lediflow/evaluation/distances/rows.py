"""Sets of embeddings that lie on several ranks, and how their rows are visited.

A set is cut into tiles of fixed height, whatever the number of ranks, and every rank has some whole tiles in a row.
What is computed from one or two tiles therefore has the same shapes, and the same bits, on any number of ranks. Tiles
of other ranks come round a ring, one rank's share at a time: no rank ever has the whole set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group

TILE = 1024  # rows: a pair of tiles of float64 has 8 MB of distances, which stay in a core's reach


class Rows(NamedTuple):
    """A rank's share of a set."""

    values: Float[Tensor, "own dim"]  # of any float dtype, on the device that shall compute
    first: int  # number of its first row in the whole set; a multiple of the tile
    total: int  # rows of the whole set, over all ranks


def share(total: int, rank: int, world_size: int, tile: int = TILE) -> range:
    """Numbers of the rows that a rank has; none, where there are fewer tiles than ranks."""
    count = -(-total // tile)
    start, stop = (min(tile * (count * place // world_size), total) for place in (rank, rank + 1))
    return range(start, stop)


def whole(values: Float[Tensor, "n dim"]) -> Rows:
    """All rows on one rank."""
    return Rows(values, 0, len(values))


def tiles(rows: Rows, tile: int = TILE) -> Iterator[tuple[int, Float[Tensor, "height dim"]]]:
    """(its number in the whole set, its rows in float64) of each tile."""
    for start in range(0, len(rows.values), tile):
        yield (rows.first + start) // tile, rows.values[start : start + tile].double()


def place(number: int, tile: Float[Tensor, "height dim"]) -> slice:
    """Of a tile's rows in the whole set."""
    return slice(number * TILE, number * TILE + len(tile))


def visits(rows: Rows, group: Group) -> Iterator[Rows]:
    """The own share, then every other rank's as it comes round the ring; called by all ranks together."""
    visitor = rows
    for visit in range(group.world_size):
        yield visitor
        if visit < group.world_size - 1:
            first = group.all_gather(visitor.first)[(group.rank - 1) % group.world_size]
            visitor = Rows(group.pass_on(visitor.values), first, rows.total)
