"""What figures of quality against cost show: lines of points, each a cost, a distance and its interval.

`evaluation.views` and `mode=stages` make lines of their results, `plots.quality` draws them. This module needs no
matplotlib.
"""

from collections.abc import Sequence
from typing import NamedTuple


class CostPoint(NamedTuple):
    """One setting of a run's sampler."""

    cost: float
    value: float
    low: float  # ends of the value's interval
    high: float
    label: str  # written next to the point


class CostLine(NamedTuple):
    """What the points of a line have in common; `solver` and `variant` may be empty."""

    run: str  # chooses the colour
    solver: str = ""  # chooses the dash
    variant: str = ""  # chooses the marker

    @property
    def name(self) -> str:
        return ", ".join(filter(None, self))


def is_beaten(point: CostPoint, others: Sequence[CostPoint]) -> bool:
    """Whether another point is at least as good and as cheap, and better or cheaper (Pareto dominance)."""
    return any(
        other.cost <= point.cost
        and other.value <= point.value
        and (other.cost, other.value) != (point.cost, point.value)
        for other in others
    )
