"""The rules by which methods are compared and goals are decided.

With h the root of the sum of squares of half a 95 % interval of both numbers, A is *as good as* B if it is not above B
by more than h, and *better than* B if it is below B by more than h.
"""

from __future__ import annotations

from math import hypot

from pages.comparison.sets import Cell

PLANNED = 6  # sets


def as_good(one: Cell, other: Cell) -> bool:
    return one.value <= other.value + hypot(one.half, other.half)


def better(one: Cell, other: Cell) -> bool:
    return one.value < other.value - hypot(one.half, other.half)


def verdict(reached: int, needed: int, measured: int) -> str:
    """Whether a goal is reached; open where the sets that were not measured could still decide."""
    could_be = reached + PLANNED - measured
    word = "yes" if reached >= needed else "open" if could_be >= needed else "no"
    return f"**{word}**: on {reached} of {measured} measured sets; the goal is {needed} of {PLANNED}"
