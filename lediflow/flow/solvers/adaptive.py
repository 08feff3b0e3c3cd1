"""Dormand-Prince 5(4) with steps as long as the error estimate allows.

A step is accepted if its error, as a multiple of the tolerance atol + rtol |x| (root mean square over the
whole batch), is at most 1; either way the next step is the last one times 0.9 error^(-1/5), within limits.
Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.4.
"""

import math
from typing import NamedTuple

import torch

from lediflow.flow.solvers.problem import OnStep, Solution, State, Velocity, at, shifted
from lediflow.flow.solvers.tableaus import DOPRI5, DOPRI5_ERROR

SAFETY, MOST_SHRINKING, MOST_GROWTH = 0.9, 0.2, 10.0


class Tolerance(NamedTuple):
    rtol: float
    atol: float

    def multiple(self, error: State, *states: State) -> float:
        """Root mean square of the error, each entry measured in the tolerance at the larger of the states."""
        largest = torch.stack([state.abs() for state in states]).amax(dim=0)
        return float((error / (self.atol + self.rtol * largest)).square().mean().sqrt())


class Attempt(NamedTuple):
    x: State
    slope: State  # at the end of the step: the first slope of the next
    error: State


def integrate(
    velocity: Velocity,
    x: State,
    t0: float,
    t1: float,
    *,
    tolerance: Tolerance,
    on_step: OnStep | None = None,
) -> Solution:
    """x at t1, each step within tolerance."""
    if t0 == t1:
        return Solution(x, nfe=0)
    t, slope = t0, velocity(x, at(t0, x))
    step, nfe = first_step(velocity, x, slope, t0, t1, tolerance), 2
    while t != t1:
        step = min(step, abs(t1 - t))
        end = t1 if step == abs(t1 - t) else t + math.copysign(step, t1 - t)
        attempt = try_step(velocity, x, slope, t, end)
        nfe += DOPRI5.stages - 1
        error = tolerance.multiple(attempt.error, x, attempt.x)
        if error <= 1:
            t, x, slope = end, attempt.x, attempt.slope
            if on_step is not None:
                on_step(t, x)
        else:
            refuse_standstill(t, step)
        step *= rescaling(error)
    return Solution(x, nfe)


def try_step(velocity: Velocity, x: State, slope: State, start: float, end: float) -> Attempt:
    """One step from `start` to `end`, whose first slope is known."""
    step, slopes, moved = end - start, [slope], x
    for a, c in zip(DOPRI5.a[1:], DOPRI5.c[1:], strict=True):
        moved = shifted(x, step, a, slopes)
        slopes.append(velocity(moved, at(start + c * step, x)))
    error = shifted(torch.zeros_like(x), step, DOPRI5_ERROR, slopes)
    return Attempt(moved, slopes[-1], error)


def first_step(
    velocity: Velocity, x: State, slope: State, t0: float, t1: float, tolerance: Tolerance
) -> float:
    """A length for the first step, from the size of x, its slope and the slope's change (Hairer, p. 169)."""
    size, steepness = tolerance.multiple(x, x), tolerance.multiple(slope, x)
    probe = 1e-6 if min(size, steepness) < 1e-5 else max(1e-6, 0.01 * size / steepness)
    probe = min(probe, abs(t1 - t0))
    ahead = math.copysign(probe, t1 - t0)
    bend = velocity(x + ahead * slope, at(t0 + ahead, x)) - slope
    sharpest = max(steepness, tolerance.multiple(bend, x) / probe)
    by_bend = max(1e-6, 1e-3 * probe) if sharpest <= 1e-15 else (0.01 / sharpest) ** (1 / DOPRI5.order)
    return min(100 * probe, by_bend)


def rescaling(error: float) -> float:
    """Factor from one step's length to the next, given the error as a multiple of the tolerance."""
    if not math.isfinite(error):
        return MOST_SHRINKING
    wanted = SAFETY * max(error, 1e-10) ** (-1 / DOPRI5.order)
    return min(MOST_GROWTH, max(MOST_SHRINKING, wanted))


def refuse_standstill(t: float, step: float) -> None:
    """Stop when steps have become too short to move t: the velocity is not finite, or far from smooth."""
    if step < 1e-12:
        raise ValueError(
            f"dopri5 at t = {t:.6g}: even a step of {step:.2g} misses the tolerance; "
            f"check that the velocity is finite, loosen rtol and atol, or use a fixed-step solver"
        )
