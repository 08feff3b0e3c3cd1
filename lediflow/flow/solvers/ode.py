"""`solve`: the entry point of all solvers."""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral, Real

from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers import adaptive, fixed
from lediflow.flow.solvers.dormand_prince import Tolerance
from lediflow.flow.solvers.grid import checked_times, equal_steps
from lediflow.flow.solvers.problem import CountedVelocity, OnStep, Solution, Velocity
from lediflow.flow.solvers.tableaus import TABLEAUS

SOLVERS = [*TABLEAUS, "dopri5"]


def solve(
    velocity: Velocity,
    x: Float[Tensor, "*dims"],
    *,
    solver: str = "heun3",
    steps: int = 4,
    t0: float = 0.0,
    t1: float = 1.0,
    times: Sequence[float] | Float[Tensor, " times"] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 1000,
    keep_states: bool = False,
    on_step: OnStep | None = None,
) -> Solution:
    """Integrate x from t0 to t1 in `steps` equal steps, or along `times`, which replaces t0, t1 and steps.

    dopri5 ignores `steps`: it adapts its steps to rtol and atol, and raises ValueError after `max_steps`.
    With `keep_states`, the result has x at every time of the grid. `on_step(t, x)` is called after every step.
    """
    check_solver(solver, steps)
    counted = CountedVelocity(velocity)
    if solver != "dopri5":
        grid = equal_steps(t0, t1, steps) if times is None else checked_times(times)
        return fixed.integrate(TABLEAUS[solver], counted, x, grid, keep_states=keep_states, on_step=on_step)
    if max_steps < 1:
        raise ValueError(f"max_steps = {max_steps}: dopri5 needs 1 or more")
    grid = equal_steps(t0, t1, 1) if times is None else checked_times(times)
    return adaptive.integrate(
        counted,
        x,
        grid,
        tolerance=checked_tolerance(rtol, atol),
        max_steps=max_steps,
        keep_states=keep_states,
        on_step=on_step,
    )


def check_solver(solver: str, steps: int) -> None:
    """ValueError for an unknown solver or an invalid number of steps."""
    if solver not in SOLVERS:
        nearest = get_close_matches(solver, SOLVERS, n=1, cutoff=0.0)[0]
        raise ValueError(f"solver {solver!r}: known are {', '.join(SOLVERS)}; did you mean {nearest!r}?")
    if solver != "dopri5" and not isinstance(steps, Integral):
        raise ValueError(f"solver {solver!r} with steps={steps!r}: give a whole number of steps, 1 or more")
    if isinstance(steps, Real) and steps < 1:
        raise ValueError(f"solver {solver!r} with {steps} steps: steps < 1 make no progress; give 1 or more")


def checked_tolerance(rtol: float, atol: float) -> Tolerance:
    if not (rtol >= 0 and atol >= 0 and 0 < rtol + atol < math.inf):
        raise ValueError(
            f"rtol = {rtol}, atol = {atol}: neither may be below 0 or infinite, and one must be above"
        )
    return Tolerance(rtol, atol)
