"""What every solver takes and gives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

State = Float[Tensor, "*dims"]  # the first axis, where there is more than one, is the batch
Times = Float[Tensor, "*batch"]  # one time for all samples (a scalar), or one each
Velocity = Callable[[State, Times], State]  # (x, t) -> dx/dt
OnStep = Callable[[Times, State], None]  # (t, x) after each step


class Solution(NamedTuple):
    """Where x ended, and what it cost. Fixed-step solvers leave `accepted` and `rejected` out."""

    x: State
    nfe: int  # calls of the velocity: a call serves the whole batch
    accepted: Int64[Tensor, "*batch"] | None = None  # steps each sample took
    rejected: Int64[Tensor, "*batch"] | None = None  # steps each sample tried and repeated shorter
    states: Float[Tensor, "times *dims"] | None = None  # x at every time of the grid, where asked for


class UnfitVelocityError(ValueError):
    """A velocity that no shape of its times would make fit."""


class CountedVelocity:
    """A velocity that counts its calls and answers in the shape of x."""

    def __init__(self, velocity: Velocity) -> None:
        self.velocity, self.calls = velocity, 0

    def __call__(self, x: State, t: Times) -> State:
        self.calls += 1
        slope = self.velocity(x, t)
        if slope.shape != x.shape:
            raise ValueError(
                f"velocity(x, t) gave shape {tuple(slope.shape)} for x of {tuple(x.shape)} and t of "
                f"{tuple(t.shape)}; it must answer in the shape of x, and take one time or one for each sample"
            )
        return slope


def time_dtype(x: State) -> torch.dtype:
    """Times are never coarser than float32, whatever x is kept in."""
    return torch.promote_types(x.dtype, torch.float32)


def at(t: float, x: State, shape: tuple[int, ...] = ()) -> Times:
    """The time as a tensor beside x, filled in place: no copy from host to device."""
    return torch.full(shape, t, dtype=time_dtype(x), device=x.device)


def beside(values: Float[Tensor, "*batch"] | Bool[Tensor, "*batch"], x: State) -> Tensor:
    """One value per sample, with axes of length one appended to meet x; numbers in x's dtype."""
    values = values if values.dtype == torch.bool else values.to(x.dtype)
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def shifted(x: State, step: float | Tensor, weights: tuple[float, ...], slopes: list[State]) -> State:
    """x + step * sum of weighted slopes, skipping weights of zero."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (step * weight) * slope
    return x
