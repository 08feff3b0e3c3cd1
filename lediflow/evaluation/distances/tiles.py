"""Sets of embeddings that lie on several ranks, and how their rows are visited.

A set is cut into tiles of fixed height, whatever the number of ranks, and every rank has some whole tiles in a row.
What is computed from one or two tiles therefore has the same shapes, and the same bits, on any number of ranks. Tiles
of other ranks come round a ring, one rank's share at a time: no rank ever has the whole set.

What no distance can be computed from is refused, on every rank with the same words.
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


def check_sets(x: Rows, y: Rows, group: Group) -> None:
    """Two sets of finite embeddings of one size; called by all ranks together."""
    shapes = [(rows.total, *rows.values.shape[1:]) for rows in (x, y)]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"cannot compare embeddings of shapes {shapes[0]} and {shapes[1]}; "
            "both must be (count, dim) with the same dim: use one feature extractor for both sets"
        )
    check_count(x.total, y.total, fewest=1)
    for rows in (x, y):
        check_finite(rows, group)


def check_count(n: int, m: int, fewest: int) -> None:
    """Enough embeddings in both sets."""
    if min(n, m) < fewest:
        raise ValueError(f"{n} and {m} embeddings, at least {fewest} needed in each set; add images")


def check_finite(rows: Rows, group: Group) -> None:
    """No infinity, and nothing that is not a number, on any rank."""
    broken = (~rows.values.isfinite().all(dim=1)).nonzero().flatten() + rows.first
    found = group.all_gather((len(broken), int(broken[0]) if len(broken) else rows.total))
    count, first = sum(count for count, _ in found), min(first for _, first in found)
    if count:
        raise ValueError(
            f"{count} of {rows.total} embeddings are not finite, the first is row {first}; "
            "look at that image, and at the extractor's weights"
        )
