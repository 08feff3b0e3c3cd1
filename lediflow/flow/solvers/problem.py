"""What every solver takes and gives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

State = Float[Tensor, "*dims"]
Velocity = Callable[[State, Float[Tensor, ""]], State]  # (x, t) -> dx/dt; t is one time for the whole batch
OnStep = Callable[[float, State], None]  # (t, x) after each step


class Solution(NamedTuple):
    x: State
    nfe: int  # velocity evaluations spent


def at(t: float, x: State) -> Float[Tensor, ""]:
    """The time as a tensor beside x, filled in place: no copy from host to device."""
    return torch.full((), t, dtype=x.dtype, device=x.device)


def shifted(x: State, step: float, weights: tuple[float, ...], slopes: list[State]) -> State:
    """x + step * sum of weighted slopes, skipping weights of zero."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (step * weight) * slope
    return x
