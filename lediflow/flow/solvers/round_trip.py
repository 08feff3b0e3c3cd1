"""Round-trip error of a solver: integrate forwards, then backwards.

An exact solver returns to the start, so the difference is the solver's error in both directions. It is a lower bound
of the error of editing by inversion (interpolation, anonymisation: arXiv:2505.20723, section 3).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers.ode import solve
from lediflow.flow.solvers.problem import State, Velocity


class RoundTrip(NamedTuple):
    """Result of round_trip_error."""

    relative_error: Float[Tensor, "*batch"]  # |x after the round trip - x| / |x| of each sample
    there: State  # x at t1
    back: State
    nfe: int  # of both directions


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
