"""Solvers of d x / dt = velocity(x, t), eq. 1 of arXiv:2505.20723, from t0 to t1; t1 < t0 runs backwards.

    solve(velocity, x, solver="heun3", steps=4).x

Fixed-step solvers ("euler", "midpoint", "heun2", "heun3", "rk4") take `steps` equal steps; "dopri5" chooses
its own from `rtol` and `atol`. `nfe`, the number of velocity evaluations, is what generation costs.
"""

from difflib import get_close_matches

from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers import adaptive, fixed
from lediflow.flow.solvers.problem import OnStep, Solution, Velocity
from lediflow.flow.solvers.tableaus import TABLEAUS

__all__ = ["SOLVERS", "OnStep", "Solution", "Velocity", "check_solver", "solve"]

SOLVERS = [*TABLEAUS, "dopri5"]


def solve(
    velocity: Velocity,
    x: Float[Tensor, "*dims"],
    *,
    solver: str = "heun3",
    steps: int = 4,
    t0: float = 0.0,
    t1: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    on_step: OnStep | None = None,
) -> Solution:
    """x carried from t0 to t1. `on_step(t, x)` is called after every step."""
    check_solver(solver, steps)
    if solver == "dopri5":
        return adaptive.integrate(
            velocity, x, t0, t1, tolerance=adaptive.Tolerance(rtol, atol), on_step=on_step
        )
    return fixed.integrate(TABLEAUS[solver], velocity, x, t0, t1, steps=steps, on_step=on_step)


def check_solver(solver: str, steps: int) -> None:
    """Refuse an unknown solver or a negative number of steps, before any work is done."""
    if steps < 0:
        raise ValueError(f"solver {solver!r} with {steps} steps: give 0 (leaves x as it is) or more")
    if solver not in SOLVERS:
        nearest = get_close_matches(solver, SOLVERS, n=1, cutoff=0.0)[0]
        raise ValueError(f"solver {solver!r}: known are {', '.join(SOLVERS)}; did you mean {nearest!r}?")
