"""`solve`, and the table of the solvers that it knows."""

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral, Real

from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers.adaptive import Adaptive
from lediflow.flow.solvers.fixed import FixedStep
from lediflow.flow.solvers.grid import checked_times, equal_steps
from lediflow.flow.solvers.problem import Control, CountedVelocity, OnStep, Solution, Solver, Velocity
from lediflow.flow.solvers.tableaus import DOPRI5, EULER, HEUN2, HEUN3, MIDPOINT, RK4

# by name, in the order of messages and pages; a new solver is one entry
SOLVERS: dict[str, Solver] = {
    "euler": FixedStep(EULER),
    "midpoint": FixedStep(MIDPOINT),
    "heun2": FixedStep(HEUN2),
    "heun3": FixedStep(HEUN3),
    "rk4": FixedStep(RK4),
    "dopri5": Adaptive(DOPRI5),
}


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

    An adaptive solver ignores `steps`: it adapts its steps to rtol and atol, and raises ValueError after `max_steps`.
    With `keep_states`, the result has x at every time of the grid. `on_step(t, x)` is called after every step.
    """
    check_solver(solver, steps)
    method = SOLVERS[solver]
    equal = 1 if method.ignores_steps else steps
    grid = equal_steps(t0, t1, equal) if times is None else checked_times(times)
    return method.integrate(
        CountedVelocity(velocity),
        x,
        grid,
        Control(rtol, atol, max_steps),
        keep_states=keep_states,
        on_step=on_step,
    )


def ignores_steps(solver: str) -> bool:
    """Whether the solver of this name chooses its own steps; False for a name that is not in the table."""
    return solver in SOLVERS and SOLVERS[solver].ignores_steps


def check_solver(solver: str, steps: int) -> None:
    """ValueError for an unknown solver or an invalid number of steps."""
    if solver not in SOLVERS:
        nearest = get_close_matches(solver, SOLVERS, n=1, cutoff=0.0)[0]
        raise ValueError(f"solver {solver!r}: known are {', '.join(SOLVERS)}; did you mean {nearest!r}?")
    if not ignores_steps(solver) and not isinstance(steps, Integral):
        raise ValueError(f"solver {solver!r} with steps={steps!r}: give a whole number of steps, 1 or more")
    if isinstance(steps, Real) and steps < 1:
        raise ValueError(f"solver {solver!r} with {steps} steps: steps < 1 make no progress; give 1 or more")
