"""Jumps of a flow map u(x, t, s), the mean velocity between two times of the same path:

    X_{t -> s}(x) = x + (s - t) u(x, t, s)

A chain of jumps from t0 to t1 replaces a solver: an exact map needs one jump, and `steps` jumps cost `steps` calls. A
map is trained for jumps towards data, s >= t.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers.problem import (
    Finiteness,
    Solution,
    State,
    Times,
    at_times,
    checked_times,
    equal_steps,
    largest_number,
)

JUMP = "jump"  # the name among the names of solvers

FlowMap = Callable[[State, Times, Times], State]  # (x, t, s) -> mean velocity from t to s


def jump(
    flow_map: FlowMap,
    x: State,
    *,
    steps: int = 1,
    t0: float = 0.0,
    t1: float = 1.0,
    times: Sequence[float] | Float[Tensor, " times"] | None = None,
    is_checked: bool = True,
) -> Solution:
    """x after `steps` equal jumps from t0 to t1, or along `times`, which replaces t0, t1 and steps.

    ValueError for times that fall, and if x is not finite after a jump. That check waits for the device once, at the
    end; without `is_checked` it is left to the caller, as `Solution.finiteness`.
    """
    if steps < 1:
        raise ValueError(f"solver {JUMP!r} with {steps} steps: give 1 or more")
    grid = equal_steps(t0, t1, steps) if times is None else checked_times(times)
    if grid[-1] < grid[0]:
        raise ValueError(
            f"{JUMP} from t = {grid[0]:g} to {grid[-1]:g}: a flow map is trained for jumps towards data; integrate its "
            "velocity, u(x, t, t), with another solver to run backwards"
        )
    largest = [largest_number(x)]
    for start, end in pairwise(grid):
        x = x + (end - start) * at_times(flow_map, x, start, end)
        largest.append(largest_number(x))
    finiteness = Finiteness(JUMP, grid, torch.stack(largest))
    if is_checked:
        finiteness.check()
    return Solution(x, len(grid) - 1, finiteness=finiteness)
