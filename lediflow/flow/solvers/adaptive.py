"""Embedded Runge-Kutta pairs with a step size per sample, adapted to its error estimate.

A sample's step is accepted if its error, as a multiple of the tolerance atol + rtol |x| (root mean square over
the sample), is at most 1. In both cases the next step size is the last one times 0.9 error^(-1/order), within limits.
All samples attempt a step in the same call of the velocity, each at its own time; samples that have reached the end
do not move. The steps of a sample do not depend on other samples.

If velocity ignores per-sample times, as x * t.cos() does with t of shape (), all samples share one step size: the one
for the largest error. `times_of_samples` checks this with a few extra calls.

Times, step sizes and errors are per sample, of shape (batch,), or scalars for a single system.
Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.4.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lediflow.flow.solvers.problem import (
    Control,
    CountedVelocity,
    OnStep,
    Solution,
    State,
    Times,
    UnsolvedError,
    as_time,
    by_sample,
    shifted,
    time_dtype,
)
from lediflow.flow.solvers.tableaus import EmbeddedPair
from lediflow.flow.solvers.times_of_samples import slope_at_own_times

SAFETY, MOST_SHRINKING, MOST_GROWTH = 0.9, 0.2, 10.0
SHORTEST_FIRST_STEP = 1e-6

Chosen = Bool[Tensor, "*batch"]  # a mask of samples
Lengths = Float[Tensor, "*batch"]


@dataclass(frozen=True)
class Adaptive:
    """An embedded pair as a solver."""

    pair: EmbeddedPair
    ignores_steps: ClassVar[bool] = True

    def evaluation_times(self, times: list[float]) -> list[float]:
        """None: they depend on the velocity."""
        return []

    def integrate(
        self,
        velocity: CountedVelocity,
        x: State,
        times: list[float],
        control: Control,
        *,
        keep_states: bool = False,
        on_step: OnStep | None = None,
    ) -> Solution:
        """Integrate x along the grid of times; all samples reach a time of the grid before any goes on.

        ValueError for a tolerance or max_steps that cannot be met; UnsolvedError for those that were not enough.
        """
        if control.max_steps < 1:
            raise ValueError(f"max_steps = {control.max_steps}: {self.pair.name} needs 1 or more")
        walk = Walk(self.pair, velocity, x, times, checked_tolerance(control.rtol, control.atol))
        states = [x]
        for end in times[1:]:
            target = as_time(end, x)
            while bool((walk.t != target).any()):
                if walk.attempts == control.max_steps:
                    raise UnsolvedError(walk.out_of_steps(target))
                walk.attempt(target)
                if on_step is not None:
                    on_step(walk.t, walk.x)
            if keep_states:
                states.append(walk.x)
        kept = torch.stack(states) if keep_states else None
        return Solution(walk.x, velocity.calls, walk.accepted, walk.rejected, kept)


class Tolerance(NamedTuple):
    """Error that a step may make in each entry: atol + rtol |x|."""

    rtol: float
    atol: float
    is_common: bool = False  # samples share a step size, determined by the largest error

    @torch.no_grad()  # step sizes have no gradient
    def multiple(self, error: State, x: State, other: State | None = None) -> Float[Tensor, "*batch"]:
        """Root mean square over each sample of error / (atol + rtol max(|x before|, |x after|))."""
        each = self._each(error, x, other)
        return each.amax() if self.is_common else each

    def _each(self, error: State, x: State, other: State | None) -> Float[Tensor, "*batch"]:
        largest = x.abs() if other is None else torch.maximum(x.abs(), other.abs())
        square = (error / (self.atol + self.rtol * largest)).to(time_dtype(x)).square()
        return square.flatten(start_dim=min(1, x.ndim - 1)).mean(dim=-1).sqrt()


class Trial(NamedTuple):
    """Result of one step, before it is accepted or rejected."""

    x: State
    slope: State  # at the end of the step, reused as the first slope of the next step
    error: State  # estimate for each entry of x


def checked_tolerance(rtol: float, atol: float) -> Tolerance:
    """The tolerance; ValueError for numbers that no step can meet."""
    if not (rtol >= 0 and atol >= 0 and 0 < rtol + atol < math.inf):
        raise ValueError(
            f"rtol = {rtol}, atol = {atol}: neither may be below 0 or infinite, and one must be above"
        )
    return Tolerance(rtol, atol)


class Walk:
    """State of the integration: for each sample its time, x, slope, and next step size."""

    def __init__(
        self,
        pair: EmbeddedPair,
        velocity: CountedVelocity,
        x: State,
        times: list[float],
        tolerance: Tolerance,
    ) -> None:
        self.pair, self.velocity, self.tolerance, self.attempts = pair, velocity, tolerance, 0
        self.x, self.t = x, as_time(times[0], x, tuple(x.shape[:1]) if x.ndim > 1 else ())
        # a shorter step would vanish in the rounding of the times
        self.shortest = 4 * torch.finfo(self.t.dtype).eps * max(abs(t) for t in times)
        if len(times) > 1:  # a single time needs no evaluation
            self.slope = self._first_slope(times)
            self._refuse_non_finite()
            self.length = first_length(
                pair, velocity, x, self.slope, self.t, times[-1] - times[0], self.tolerance
            ).clamp(min=2 * self.shortest)
        self.accepted = self.rejected = torch.zeros_like(self.t, dtype=torch.int64)

    def _first_slope(self, times: list[float]) -> State:
        """The slope at the start; switches to a common step size if velocity ignores per-sample times."""
        is_batch = self.x.ndim > 1 and len(self.x) > 1
        slope = slope_at_own_times(self.velocity, self.x, times[0], times[-1]) if is_batch else None
        if slope is not None:
            return slope
        if is_batch:
            self.t, self.tolerance = as_time(times[0], self.x), self.tolerance._replace(is_common=True)
        return self.velocity(self.x, self.t)

    def attempt(self, target: Times) -> None:
        """Attempt a step of every sample towards the target; accept it where the error is within the tolerance."""
        self.attempts += 1
        remaining = (target - self.t).abs()
        is_last = self.length >= remaining
        length = torch.where(is_last, remaining, self.length)
        end = torch.where(is_last, target, self.t + (target - self.t).sign() * length)
        trial = try_step(self.pair, self.velocity, self.x, self.slope, self.t, end)
        error = self.tolerance.multiple(trial.error, self.x, trial.x)
        is_walking = self.t != target
        is_accepted = is_walking & (error <= 1)  # False for a NaN error
        longer = length * rescaling(self.pair, error)
        # a step shortened to end at the target does not reduce the planned step size
        longer = torch.where(is_accepted & is_last, torch.maximum(longer, self.length), longer)
        self.length = torch.where(is_walking, longer, self.length)
        self._accept(is_accepted, trial, end)
        self.accepted = self.accepted + is_accepted
        self.rejected = self.rejected + (is_walking & ~is_accepted)
        self._refuse_standstill(is_walking & ~is_accepted & (self.length < self.shortest), error)

    def _accept(self, is_accepted: Chosen, trial: Trial, end: Times) -> None:
        everywhere = by_sample(is_accepted, self.x)
        self.x = torch.where(everywhere, trial.x, self.x)
        self.slope = torch.where(everywhere, trial.slope, self.slope)
        self.t = torch.where(is_accepted, end, self.t)

    def out_of_steps(self, target: Times) -> str:
        """The error message if max_steps was not enough: the first unfinished sample and its time."""
        return (
            f"{self._first(self.t != target)} after max_steps = {self.attempts} steps (rtol {self.tolerance.rtol:g}, "
            f"atol {self.tolerance.atol:g}); allow more, loosen rtol and atol, or use a fixed-step solver"
        )

    def _refuse_non_finite(self) -> None:
        is_finite = self.slope.isfinite().flatten(start_dim=min(1, self.x.ndim - 1)).all(dim=-1)
        if not bool(is_finite.all()):
            raise UnsolvedError(f"{self._first(~is_finite)}: x or the velocity is not finite at the start")

    def _refuse_standstill(self, is_stuck: Chosen, error: Times) -> None:
        """UnsolvedError if steps are too short to change t: the velocity is not finite, or far from smooth."""
        if bool(is_stuck.any()):
            length, missed = (float(values[is_stuck][0]) for values in (self.length, error))
            raise UnsolvedError(
                f"{self._first(is_stuck)}: a step of {length:.2g} is too short to continue, and the last error was "
                f"{missed:.3g} times the tolerance; check that the velocity is finite, loosen rtol and atol, "
                "or use a fixed-step solver"
            )

    def _first(self, chosen: Chosen) -> str:
        """The first of the chosen samples and its time, for a message."""
        if self.t.ndim == 0:
            return f"{self.pair.name} at t = {float(self.t):.6g}"
        first = int(chosen.nonzero()[0])
        return f"{self.pair.name}, sample {first} of {len(self.t)} at t = {float(self.t[first]):.6g}"


def try_step(
    pair: EmbeddedPair, velocity: CountedVelocity, x: State, slope: State, start: Times, end: Times
) -> Trial:
    """A step of each sample from `start` to `end`, given its first slope."""
    step, slopes, moved = end - start, [slope], x
    for a, c in zip(pair.a[1:], pair.c[1:], strict=True):
        moved = shifted(x, by_sample(step, x), a, slopes)
        slopes.append(velocity(moved, start + c * step))
    error = shifted(torch.zeros_like(x), by_sample(step, x), pair.error, slopes)
    return Trial(moved, slopes[-1], error)


@torch.no_grad()
def first_length(
    pair: EmbeddedPair,
    velocity: CountedVelocity,
    x: State,
    slope: State,
    t: Times,
    span: float,
    tolerance: Tolerance,
) -> Lengths:
    """Size of the first step, from x, its slope and the change of the slope (Hairer, p. 169)."""
    size, steepness = tolerance.multiple(x, x), tolerance.multiple(slope, x)
    probe = (0.01 * size / steepness).clamp(min=SHORTEST_FIRST_STEP)
    probe = torch.where(torch.minimum(size, steepness) < 1e-5, SHORTEST_FIRST_STEP, probe)
    probe = probe.clamp(max=abs(span))
    ahead = probe if span > 0 else -probe
    bend = velocity(x + by_sample(ahead, x) * slope, t + ahead) - slope
    sharpest = torch.maximum(steepness, tolerance.multiple(bend, x) / probe)
    by_bend = torch.where(sharpest <= 1e-15, 1e-3 * probe, (0.01 / sharpest) ** (1 / pair.order))
    return torch.minimum(100 * probe, by_bend).nan_to_num(nan=0.0).clamp(min=SHORTEST_FIRST_STEP)


def rescaling(pair: EmbeddedPair, error: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Factor from one step size to the next, given the error as a multiple of the tolerance."""
    wanted = SAFETY * error.clamp(min=1e-10) ** (-1 / pair.order)
    return wanted.nan_to_num(nan=MOST_SHRINKING).clamp(MOST_SHRINKING, MOST_GROWTH)
