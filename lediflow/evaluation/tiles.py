"""Sets of embeddings that are spread over ranks, and iteration over their rows.

A set is divided into tiles of fixed height, independent of the number of ranks, and every rank holds some consecutive
whole tiles. What is computed from one or two tiles therefore has the same shapes, and the same bits, on any number of
ranks. Tiles of other ranks are passed around a ring, one rank's share at a time: no rank ever holds the whole set.

Sets that no distance can be computed from are refused on every rank with the same message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group

TILE = 1024  # rows; a pair of tiles has 8 MB of float64 distances, which fit into a core's cache


class Rows(NamedTuple):
    """A rank's share of a set."""

    values: Float[Tensor, "own dim"]  # any float dtype, on the device that computes
    first: int  # number of its first row in the whole set; a multiple of the tile
    total: int  # rows of the whole set, over all ranks


def share(total: int, rank: int, world_size: int, tile: int = TILE) -> range:
    """Numbers of the rows that a rank holds; empty for some ranks if there are fewer tiles than ranks."""
    count = -(-total // tile)
    start, stop = (min(tile * (count * place // world_size), total) for place in (rank, rank + 1))
    return range(start, stop)


def whole(values: Float[Tensor, "n dim"]) -> Rows:
    """A set that is on one rank as a whole."""
    return Rows(values, 0, len(values))


def tiles(rows: Rows, tile: int = TILE) -> Iterator[tuple[int, Float[Tensor, "height dim"]]]:
    """(number in the whole set, rows in float64) of each tile of this rank."""
    for start in range(0, len(rows.values), tile):
        yield (rows.first + start) // tile, rows.values[start : start + tile].double()


def place(number: int, tile: Float[Tensor, "height dim"]) -> slice:
    """Place of a tile's rows in the whole set."""
    return slice(number * TILE, number * TILE + len(tile))


def visits(rows: Rows, group: Group) -> Iterator[Rows]:
    """This rank's share, then each other rank's as it is passed around the ring; every rank must exhaust it."""
    visitor = rows
    for visit in range(group.world_size):
        yield visitor
        if visit < group.world_size - 1:
            first = group.all_gather(visitor.first)[(group.rank - 1) % group.world_size]
            visitor = Rows(group.pass_on(visitor.values), first, rows.total)


def check_sets(x: Rows, y: Rows, group: Group) -> None:
    """ValueError unless both sets are finite and of one dimension; every rank must call it."""
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
    """ValueError if a set has fewer embeddings than needed."""
    if min(n, m) < fewest:
        raise ValueError(f"{n} and {m} embeddings, at least {fewest} needed in each set; add images")


def check_finite(rows: Rows, group: Group) -> None:
    """ValueError on every rank if any rank has infinite or NaN embeddings."""
    broken = (~rows.values.isfinite().all(dim=1)).nonzero().flatten() + rows.first
    found = group.all_gather((len(broken), int(broken[0]) if len(broken) else rows.total))
    count, first = sum(count for count, _ in found), min(first for _, first in found)
    if count:
        raise ValueError(
            f"{count} of {rows.total} embeddings are not finite, the first is row {first}; "
            "look at that image, and at the extractor's weights"
        )
