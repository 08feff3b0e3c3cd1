"""Explicit Runge-Kutta methods with one step between consecutive times of the grid.

Every method integrates a constant velocity exactly, which inpainting (eq. 7) relies on.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch

from lediflow.flow.solvers.problem import (
    Control,
    CountedVelocity,
    Finiteness,
    OnStep,
    Solution,
    State,
    as_time,
    largest_number,
    shifted,
)
from lediflow.flow.solvers.tableaus import Tableau


@dataclass(frozen=True)
class FixedStep:
    """A Runge-Kutta method as a solver."""

    tableau: Tableau
    ignores_steps: ClassVar[bool] = False

    def evaluation_times(self, times: list[float]) -> list[float]:
        """The times at which `integrate` evaluates the velocity along a grid, in order."""
        steps = pairwise(times)
        return [time for t, end in steps for time in stage_times(self.tableau, t, end - t)]

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
        """Integrate x along the grid of times."""
        tableau, states, largest = self.tableau, [x], [largest_number(x)]
        for start, end in pairwise(times):
            x = shifted(x, end - start, tableau.b, stage_slopes(tableau, velocity, x, start, end - start))
            largest.append(largest_number(x))
            if keep_states:
                states.append(x)
            if on_step is not None:
                on_step(as_time(end, x), x)
        return Solution(
            x,
            velocity.calls,
            states=torch.stack(states) if keep_states else None,
            finiteness=Finiteness(tableau.name, times, torch.stack(largest)),
        )


def stage_slopes(tableau: Tableau, velocity: CountedVelocity, x: State, t: float, step: float) -> list[State]:
    """The slopes k_1, k_2, ... of one step."""
    slopes: list[State] = []
    for a, time in zip(tableau.a, stage_times(tableau, t, step), strict=True):
        slopes.append(velocity.at(shifted(x, step, a, slopes), time))
    return slopes


def stage_times(tableau: Tableau, t: float, step: float) -> list[float]:
    """The times of the slopes of one step."""
    return [t + c * step for c in tableau.c]
