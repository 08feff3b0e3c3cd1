"""The grid of times of a solver: strictly increasing or strictly decreasing."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

MOST_STEPS = 1_000_000  # because all times of a grid are held in memory


def equal_steps(t0: float, t1: float, steps: int) -> list[float]:
    """The times of `steps` equal steps from t0 to t1; [t0] if t0 == t1."""
    if not (math.isfinite(t0) and math.isfinite(t1)):
        raise ValueError(f"t0 = {t0}, t1 = {t1}: a solver runs between two finite times")
    if t0 == t1:
        return [t0]
    return [t0 + (t1 - t0) * k / steps for k in range(steps)] + [t1]


def checked_times(times: Sequence[float] | Tensor) -> list[float]:
    """Check a given grid: at least two finite times, strictly increasing or decreasing."""
    grid = [float(t) for t in times]
    if len(grid) < 2:
        raise ValueError(f"times has {len(grid)} entries; give at least a start and an end")
    forwards = grid[1] > grid[0]
    for place, (start, end) in enumerate(pairwise(grid), start=1):
        if not (math.isfinite(start) and math.isfinite(end) and start != end and (end > start) == forwards):
            raise ValueError(
                f"times[{place - 1}] = {start}, times[{place}] = {end}: times must be finite and all rise, or all "
                "fall; sort them and drop repeated ones"
            )
    return grid
