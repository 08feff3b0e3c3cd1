"""Dormand-Prince 5(4): every sample of a batch takes steps as long as its own error estimate allows.

A sample's step is accepted if its error, as a multiple of the tolerance atol + rtol |x| (root mean square over
the sample), is at most 1; either way its next step is the last one times 0.9 error^(-1/5), within limits. All
samples try their steps together, so one call of the velocity serves them all, each at a time of its own; those
that have arrived stay where they are. No sample's steps depend on another's.

A velocity that understands no more than one time for all, as x * t.cos() does, is found out by calls at times that
differ (`times_of_samples`); its samples share their steps, and the one with the largest error decides.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from lediflow.flow.solvers.dormand_prince import Attempt, Tolerance, first_length, rescaling, try_step
from lediflow.flow.solvers.problem import CountedVelocity, OnStep, Solution, State, Times, at, beside
from lediflow.flow.solvers.times_of_samples import slope_at_own_times

Chosen = Bool[Tensor, "*batch"]  # some of the samples


def integrate(
    velocity: CountedVelocity,
    x: State,
    times: list[float],
    *,
    tolerance: Tolerance,
    max_steps: int,
    keep_states: bool = False,
    on_step: OnStep | None = None,
) -> Solution:
    """x carried along the grid; at each of its times the samples wait for each other."""
    walk = Walk(velocity, x, times, tolerance)
    states = [x]
    for end in times[1:]:
        target = at(end, x)
        while bool((walk.t != target).any()):
            if walk.attempts == max_steps:
                raise ValueError(walk.lateness(target))
            walk.attempt(target)
            if on_step is not None:
                on_step(walk.t, walk.x)
        if keep_states:
            states.append(walk.x)
    kept = torch.stack(states) if keep_states else None
    return Solution(walk.x, velocity.calls, walk.accepted, walk.rejected, kept)


class Walk:
    """Where each sample stands: its time, x, the slope there, and the length of step it would take next."""

    def __init__(self, velocity: CountedVelocity, x: State, times: list[float], tolerance: Tolerance) -> None:
        self.velocity, self.tolerance, self.attempts = velocity, tolerance, 0
        self.x, self.t = x, at(times[0], x, tuple(x.shape[:1]) if x.ndim > 1 else ())
        # A shorter step would be lost in the rounding of the times.
        self.shortest = 4 * torch.finfo(self.t.dtype).eps * max(abs(t) for t in times)
        if len(times) > 1:  # else there is nowhere to go, and nothing to pay
            self.slope = self._first_slope(times)
            self._refuse_non_finite()
            self.length = first_length(velocity, x, self.slope, self.t, times[-1] - times[0], self.tolerance)
            self.length = self.length.clamp(min=2 * self.shortest)
        self.accepted = self.rejected = torch.zeros_like(self.t, dtype=torch.int64)

    def _first_slope(self, times: list[float]) -> State:
        """The slope at the start; samples of a velocity that does not tell their times apart get one in common."""
        is_batch = self.x.ndim > 1 and len(self.x) > 1
        slope = slope_at_own_times(self.velocity, self.x, times[0], times[-1]) if is_batch else None
        if slope is not None:
            return slope
        if is_batch:
            self.t, self.tolerance = at(times[0], self.x), self.tolerance._replace(is_common=True)
        return self.velocity(self.x, self.t)

    def attempt(self, target: Times) -> None:
        """Every sample tries a step towards the target, and takes it if its error is within the tolerance."""
        self.attempts += 1
        remaining = (target - self.t).abs()
        is_last = self.length >= remaining
        length = torch.where(is_last, remaining, self.length)
        end = torch.where(is_last, target, self.t + (target - self.t).sign() * length)
        trial = try_step(self.velocity, self.x, self.slope, self.t, end)
        error = self.tolerance.multiple(trial.error, self.x, trial.x)
        is_walking = self.t != target
        is_accepted = is_walking & (error <= 1)  # false where the error is not a number
        longer = length * rescaling(error)
        # A step cut short by the target says nothing against the length that was planned.
        longer = torch.where(is_accepted & is_last, torch.maximum(longer, self.length), longer)
        self.length = torch.where(is_walking, longer, self.length)
        self._accept(is_accepted, trial, end)
        self.accepted = self.accepted + is_accepted
        self.rejected = self.rejected + (is_walking & ~is_accepted)
        self._refuse_standstill(is_walking & ~is_accepted & (self.length < self.shortest), error)

    def _accept(self, is_accepted: Chosen, trial: Attempt, end: Times) -> None:
        everywhere = beside(is_accepted, self.x)
        self.x = torch.where(everywhere, trial.x, self.x)
        self.slope = torch.where(everywhere, trial.slope, self.slope)
        self.t = torch.where(is_accepted, end, self.t)

    def lateness(self, target: Times) -> str:
        """Which sample is how far after the last step that was allowed."""
        return (
            f"{self._first(self.t != target)} after max_steps = {self.attempts} steps (rtol {self.tolerance.rtol:g}, "
            f"atol {self.tolerance.atol:g}); allow more, loosen rtol and atol, or use a fixed-step solver"
        )

    def _refuse_non_finite(self) -> None:
        is_finite = self.slope.isfinite().flatten(start_dim=min(1, self.x.ndim - 1)).all(dim=-1)
        if not bool(is_finite.all()):
            raise ValueError(f"{self._first(~is_finite)}: x or the velocity is not finite at the start")

    def _refuse_standstill(self, is_stuck: Chosen, error: Times) -> None:
        """Stop where steps have become too short to move t: the velocity is not finite, or far from smooth."""
        if bool(is_stuck.any()):
            length, missed = (float(values[is_stuck][0]) for values in (self.length, error))
            raise ValueError(
                f"{self._first(is_stuck)}: a step of {length:.2g} is too short to go on, and the error of the last "
                f"was {missed:.3g} times the tolerance; check that the velocity is finite, loosen rtol and atol, "
                "or use a fixed-step solver"
            )

    def _first(self, chosen: Chosen) -> str:
        """The first of the chosen samples and its time, in words."""
        if self.t.ndim == 0:
            return f"dopri5 at t = {float(self.t):.6g}"
        first = int(chosen.nonzero()[0])
        return f"dopri5, sample {first} of {len(self.t)} at t = {float(self.t[first]):.6g}"
