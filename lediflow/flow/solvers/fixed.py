"""Explicit Runge-Kutta with equal steps.

A constant part of the velocity is integrated exactly, whatever the method: inpainting (eq. 7) rests on that.
"""

from itertools import pairwise

from lediflow.flow.solvers.problem import OnStep, Solution, State, Velocity, at, shifted
from lediflow.flow.solvers.tableaus import Tableau


def integrate(
    tableau: Tableau,
    velocity: Velocity,
    x: State,
    t0: float,
    t1: float,
    *,
    steps: int,
    on_step: OnStep | None = None,
) -> Solution:
    """x at t1, after `steps` equal steps from t0."""
    times = [t0 + (t1 - t0) * k / steps for k in range(steps + 1)] if steps else []
    for start, end in pairwise(times):
        x = shifted(x, end - start, tableau.b, stage_slopes(tableau, velocity, x, start, end - start))
        if on_step is not None:
            on_step(end, x)
    return Solution(x, nfe=steps * tableau.stages)


def stage_slopes(tableau: Tableau, velocity: Velocity, x: State, t: float, step: float) -> list[State]:
    """The slopes k_1, k_2, ... of one step."""
    slopes: list[State] = []
    for a, c in zip(tableau.a, tableau.c, strict=True):
        slopes.append(velocity(shifted(x, step, a, slopes), at(t + c * step, x)))
    return slopes
