"""What all solvers share: the types of states, velocities and solutions, and the grid of times.

A grid is strictly increasing or strictly decreasing; a solver passes through each of its times.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

MOST_STEPS = 1_000_000  # because all times of a grid are held in memory

State = Float[Tensor, "*dims"]  # with more than one axis, the first is the batch
Times = Float[Tensor, "*batch"]  # a scalar, or one time per sample
Velocity = Callable[[State, Times], State]  # (x, t) -> dx/dt
OnStep = Callable[[Times, State], None]  # (t, x) after each step


class UnsolvedError(ValueError):
    """A solver could not go on: x or the velocity is not finite, or the steps that are allowed were not enough."""


class Finiteness(NamedTuple):
    """Whether x was finite at each time of the grid: known to the device, and to the host after `check`."""

    solver: str
    times: list[float]
    largest: Float[Tensor, " times"]  # the largest absolute number of x

    def check(self) -> None:
        """UnsolvedError naming the step after which x is no longer finite; waits for the device."""
        is_finite = self.largest.isfinite().tolist()
        if all(is_finite):
            return
        step = is_finite.index(False)
        if step == 0:
            raise UnsolvedError(
                f"{self.solver}: x is not finite at the start, t = {self.times[0]:.6g}; check its source"
            )
        raise UnsolvedError(
            f"{self.solver}: x is no longer finite after step {step} of {len(self.times) - 1}, from t = "
            f"{self.times[step - 1]:.6g} to {self.times[step]:.6g}; check that the velocity is finite, or take more "
            "steps"
        )


def largest_number(x: State) -> Float[Tensor, ""]:
    """The largest absolute value, NaN if there is one: by one kernel, where `isfinite().all()` takes five."""
    return torch.linalg.vector_norm(x.detach(), torch.inf) if x.numel() else x.new_zeros(())


class Solution(NamedTuple):
    """x at the end, and the cost. `accepted` and `rejected` are None for fixed-step solvers."""

    x: State
    nfe: int  # calls of the velocity, each for the whole batch
    accepted: Int64[Tensor, "*batch"] | None = None  # number of accepted steps of each sample
    rejected: Int64[Tensor, "*batch"] | None = None  # number of rejected steps of each sample
    states: Float[Tensor, " times *dims"] | None = None  # x at every time of the grid, if keep_states
    finiteness: Finiteness | None = None  # None: the solver has checked it on its way


class Control(NamedTuple):
    """Options of solvers that choose their own steps; the others ignore them."""

    rtol: float
    atol: float
    max_steps: int


class Solver(Protocol):
    """What the table of solvers holds (ode.py): a method that integrates x along a grid of times."""

    # whether it chooses its own steps, so that the number of steps does not matter
    ignores_steps: ClassVar[bool]

    def evaluation_times(self, times: list[float]) -> list[float]:
        """The times at which the velocity is evaluated along a grid, in order; none if they are not known before."""

    def integrate(
        self,
        velocity: "CountedVelocity",
        x: State,
        times: list[float],
        control: Control,
        *,
        keep_states: bool = False,
        on_step: OnStep | None = None,
    ) -> Solution:
        """Integrate x from the first of `times` to the last; `keep_states` and `on_step` are those of `solve`."""


class UnfitVelocityError(ValueError):
    """The velocity does not fit for times of any shape."""


class CountedVelocity:
    """Wraps a velocity: counts its calls and checks that the result has the shape of x."""

    def __init__(self, velocity: Velocity) -> None:
        self.velocity, self.calls = velocity, 0

    def __call__(self, x: State, t: Times) -> State:
        self.calls += 1
        return self._checked(x, self.velocity(x, t), tuple(t.shape))

    def at(self, x: State, t: float) -> State:
        """The velocity at a time that is known on the host."""
        self.calls += 1
        return self._checked(x, at_times(self.velocity, x, t), ())

    def _checked(self, x: State, slope: State, shape_of_time: tuple[int, ...]) -> State:
        if slope.shape != x.shape:
            raise ValueError(
                f"velocity(x, t) gave shape {tuple(slope.shape)} for x of {tuple(x.shape)} and t of "
                f"{shape_of_time}; it must return the shape of x, and accept a scalar time or one per sample"
            )
        return slope


def time_dtype(x: State) -> torch.dtype:
    """The dtype of times: that of x, but at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def as_time(t: float, x: State, shape: tuple[int, ...] = ()) -> Times:
    """The time as a tensor on the device of x, created there without a copy from the host."""
    return torch.full(shape, t, dtype=time_dtype(x), device=x.device)


def at_times(velocity: Callable[..., State], x: State, *times: float) -> State:
    """velocity(x, *times) for times that are known on the host; by the method `at` of a velocity that has it."""
    if (at := getattr(velocity, "at", None)) is not None:
        found: State = at(x, *times)
        return found
    return velocity(x, *(as_time(t, x) for t in times))


def by_sample(values: Float[Tensor, "*batch"] | Bool[Tensor, "*batch"], x: State) -> Tensor:
    """One value per sample, in x's dtype, with axes of length one appended to broadcast with x."""
    values = values if values.dtype == torch.bool else values.to(x.dtype)
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def shifted(x: State, step: float | Tensor, weights: tuple[float, ...], slopes: list[State]) -> State:
    """x + step * sum of weights * slopes, skipping zero weights."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (step * weight) * slope
    return x


def equal_steps(t0: float, t1: float, steps: int) -> list[float]:
    """The times of `steps` equal steps from t0 to t1; [t0] if t0 == t1."""
    if not (math.isfinite(t0) and math.isfinite(t1)):
        raise ValueError(f"t0 = {t0}, t1 = {t1}: a solver runs between two finite times")
    if t0 == t1:
        return [t0]
    return [t0 + (t1 - t0) * k / steps for k in range(steps)] + [t1]


def checked_times(times: Sequence[float] | Tensor) -> list[float]:
    """Check a given grid: at least two finite times, strictly increasing or decreasing."""
    grid = [float(t) for t in times]
    if len(grid) < 2:
        raise ValueError(f"times has {len(grid)} entries; give at least a start and an end")
    forwards = grid[1] > grid[0]
    for place, (start, end) in enumerate(pairwise(grid), start=1):
        if not (math.isfinite(start) and math.isfinite(end) and start != end and (end > start) == forwards):
            raise ValueError(
                f"times[{place - 1}] = {start}, times[{place}] = {end}: times must be finite and all rise, or all "
                "fall; sort them and drop repeated ones"
            )
    return grid
