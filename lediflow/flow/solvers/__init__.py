"""Solvers of d x / dt = velocity(x, t), eq. 1 of arXiv:2505.20723, from t0 to t1; t1 < t0 runs backwards.

    solve(velocity, x, solver="heun3", steps=4).x

Fixed-step solvers ("euler", "midpoint", "heun2", "heun3", "rk4") take `steps` equal steps, or the steps
between the given `times`, and call velocity(x, t) with a scalar t. The adaptive solver "dopri5" fits each sample's
step size to `rtol` and `atol`, and calls velocity(x, t) with t of shape (batch,) if the velocity accepts one time per
sample. If x has one axis, it is a single system with a scalar t. SOLVERS is the table of them all.
`nfe`, the number of velocity evaluations, is the cost of generation. A flow map has no solver of this table: `jump`
goes from time to time, and options name it "jump".
"""

from lediflow.flow.solvers.jumps import JUMP, FlowMap, jump
from lediflow.flow.solvers.ode import (
    SOLVERS,
    RoundTrip,
    check_solver,
    evaluation_times,
    ignores_steps,
    round_trip_error,
    solve,
)
from lediflow.flow.solvers.problem import (
    MOST_STEPS,
    Finiteness,
    OnStep,
    Solution,
    UnfitVelocityError,
    UnsolvedError,
    Velocity,
    as_time,
)

__all__ = [
    "JUMP",
    "MOST_STEPS",
    "SOLVERS",
    "Finiteness",
    "FlowMap",
    "OnStep",
    "RoundTrip",
    "Solution",
    "UnfitVelocityError",
    "UnsolvedError",
    "Velocity",
    "as_time",
    "check_solver",
    "evaluation_times",
    "ignores_steps",
    "jump",
    "round_trip_error",
    "solve",
]
