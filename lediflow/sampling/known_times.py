"""A velocity whose network knows the times of its solver before it starts (lediflow/sampling/runtime/conditions.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lediflow.flow.solvers import evaluation_times

Slope = Callable[..., Tensor]  # (x, t) -> velocity; of a flow map (x, t, s) -> mean velocity


class AtKnownTimes:
    """A velocity for a solver that calls `at` with times that were prepared, and the velocity itself with others."""

    def __init__(self, velocity: Slope, network: Any, times: list[float], z: Tensor | None) -> None:
        self.velocity, self.network, self.z = velocity, network, z
        self.known = network.prepare(times, z)

    def __call__(self, x: Tensor, *times: Tensor) -> Tensor:
        return self.velocity(x, *times)

    def at(self, x: Tensor, *times: float) -> Tensor:
        found: Tensor = self.network.at(x, times, self.known, self.z)
        return found


def at_known_times(velocity: Slope, network: Any, solver: str, steps: int, z: Tensor | None = None) -> Slope:
    """`velocity`, prepared for a solver if its network can be; it must call the network with `z`, without classes."""
    times = evaluation_times(solver, steps)
    if not times or not hasattr(network, "prepare"):
        return velocity
    return AtKnownTimes(velocity, network, times, z)
