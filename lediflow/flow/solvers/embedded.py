"""One step of an embedded pair, its error in units of the tolerance, and the choice of the step size.

Times, step sizes and errors are per sample, of shape (batch,), or scalars for a single system.
Source: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, section II.4.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers.problem import CountedVelocity, State, Times, beside, shifted, time_dtype
from lediflow.flow.solvers.tableaus import EmbeddedPair

SAFETY, MOST_SHRINKING, MOST_GROWTH = 0.9, 0.2, 10.0
SHORTEST_FIRST_STEP = 1e-6

Lengths = Float[Tensor, "*batch"]


class Tolerance(NamedTuple):
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


class Attempt(NamedTuple):
    x: State
    slope: State  # at the end of the step, reused as the first slope of the next step
    error: State


def checked_tolerance(rtol: float, atol: float) -> Tolerance:
    """The tolerance; ValueError for numbers that no step can meet."""
    if not (rtol >= 0 and atol >= 0 and 0 < rtol + atol < math.inf):
        raise ValueError(
            f"rtol = {rtol}, atol = {atol}: neither may be below 0 or infinite, and one must be above"
        )
    return Tolerance(rtol, atol)


def try_step(
    pair: EmbeddedPair, velocity: CountedVelocity, x: State, slope: State, start: Times, end: Times
) -> Attempt:
    """A step of each sample from `start` to `end`, given its first slope."""
    step, slopes, moved = end - start, [slope], x
    for a, c in zip(pair.a[1:], pair.c[1:], strict=True):
        moved = shifted(x, beside(step, x), a, slopes)
        slopes.append(velocity(moved, start + c * step))
    error = shifted(torch.zeros_like(x), beside(step, x), pair.error, slopes)
    return Attempt(moved, slopes[-1], error)


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
    bend = velocity(x + beside(ahead, x) * slope, t + ahead) - slope
    sharpest = torch.maximum(steepness, tolerance.multiple(bend, x) / probe)
    by_bend = torch.where(sharpest <= 1e-15, 1e-3 * probe, (0.01 / sharpest) ** (1 / pair.order))
    return torch.minimum(100 * probe, by_bend).nan_to_num(nan=0.0).clamp(min=SHORTEST_FIRST_STEP)


def rescaling(pair: EmbeddedPair, error: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Factor from one step size to the next, given the error as a multiple of the tolerance."""
    wanted = SAFETY * error.clamp(min=1e-10) ** (-1 / pair.order)
    return wanted.nan_to_num(nan=MOST_SHRINKING).clamp(MOST_SHRINKING, MOST_GROWTH)
