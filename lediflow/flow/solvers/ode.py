"""`solve`, the table of the solvers that it knows, and the error of a round trip.

A round trip integrates forwards, then backwards. An exact solver returns to the start, so the difference is the
solver's error in both directions. It is a lower bound of the error of editing by inversion (interpolation,
anonymisation: arXiv:2505.20723, section 3).
"""

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers.adaptive import Adaptive
from lediflow.flow.solvers.fixed import FixedStep
from lediflow.flow.solvers.jumps import JUMP
from lediflow.flow.solvers.problem import (
    Control,
    CountedVelocity,
    OnStep,
    Solution,
    Solver,
    State,
    Velocity,
    checked_times,
    equal_steps,
)
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


class RoundTrip(NamedTuple):
    """Result of round_trip_error."""

    relative_error: Float[Tensor, "*batch"]  # |x after the round trip - x| / |x| of each sample
    there: State  # x at t1
    back: State
    nfe: int  # of both directions


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
    is_checked: bool = True,
) -> Solution:
    """Integrate x from t0 to t1 in `steps` equal steps, or along `times`, which replaces t0, t1 and steps.

    An adaptive solver ignores `steps`: it adapts its steps to rtol and atol, and raises ValueError after `max_steps`.
    With `keep_states`, the result has x at every time of the grid. `on_step(t, x)` is called after every step.
    ValueError for an x of integers, and if x is not finite after a step. The check waits for the device once, at the
    end; without `is_checked` it is left to the caller, as `Solution.finiteness`.
    """
    if solver == JUMP:
        raise ValueError(
            f"solver {JUMP!r} is for flow maps: call lediflow.flow.solvers.jump, or choose one of {', '.join(SOLVERS)}"
        )
    check_solver(solver, steps)
    if not (x.is_floating_point() or x.is_complex()):
        raise ValueError(
            f"solver {solver!r}: x is of {x.dtype}; give floating-point numbers, such as x.float()"
        )
    method = SOLVERS[solver]
    equal = 1 if method.ignores_steps else steps
    grid = equal_steps(t0, t1, equal) if times is None else checked_times(times)
    solution = method.integrate(
        CountedVelocity(velocity),
        x,
        grid,
        Control(rtol, atol, max_steps),
        keep_states=keep_states,
        on_step=on_step,
    )
    if is_checked and solution.finiteness is not None:
        solution.finiteness.check()
    return solution


def evaluation_times(solver: str, steps: int) -> list[float]:
    """The times at which `steps` equal steps, or jumps, from 0 to 1 evaluate a model, each once.

    Empty for a solver that chooses its own steps.
    """
    if solver == JUMP:
        return equal_steps(0.0, 1.0, steps)
    return [*dict.fromkeys(SOLVERS[solver].evaluation_times(equal_steps(0.0, 1.0, steps)))]


def ignores_steps(solver: str) -> bool:
    """Whether the solver of this name chooses its own steps; False for a name that is not in the table."""
    return solver in SOLVERS and SOLVERS[solver].ignores_steps


def check_solver(solver: str, steps: int) -> None:
    """ValueError for an unknown solver or an invalid number of steps; "jump" is known, too."""
    if solver not in SOLVERS and solver != JUMP:
        nearest = get_close_matches(str(solver), [*SOLVERS, JUMP], n=1, cutoff=0.0)[0]
        raise ValueError(
            f"solver {solver!r}: known are {', '.join(SOLVERS)}, and {JUMP} for flow maps; did you mean {nearest!r}?"
        )
    if not ignores_steps(solver) and not isinstance(steps, Integral):
        raise ValueError(f"solver {solver!r} with steps={steps!r}: give a whole number of steps, 1 or more")
    if isinstance(steps, Real) and steps < 1:
        raise ValueError(f"solver {solver!r} with {steps} steps: steps < 1 make no progress; give 1 or more")


def round_trip_error(
    velocity: Velocity,
    x: State,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    times: Sequence[float] | Float[Tensor, " times"] | None = None,
    **options: Any,
) -> RoundTrip:
    """Integrate x from t0 to t1 and back, with the options of `solve`; `times` is used in both directions."""
    homewards = None if times is None else list(times)[::-1]
    there = solve(velocity, x, t0=t0, t1=t1, times=times, **options)
    back = solve(velocity, there.x, t0=t1, t1=t0, times=homewards, **options)
    missing = sample_norm(back.x - x) / sample_norm(x).clamp(min=torch.finfo(x.dtype).tiny)
    return RoundTrip(missing, there.x, back.x, there.nfe + back.nfe)


def sample_norm(x: State) -> Float[Tensor, "*batch"]:
    """Euclidean norm of each sample; of the whole x if it has no batch axis."""
    return x.flatten(start_dim=min(1, x.ndim - 1)).norm(dim=-1)
