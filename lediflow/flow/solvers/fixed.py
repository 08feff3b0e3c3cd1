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
    shifted,
)
from lediflow.flow.solvers.tableaus import Tableau


@dataclass(frozen=True)
class FixedStep:
    """A Runge-Kutta method as a solver."""

    tableau: Tableau
    ignores_steps: ClassVar[bool] = False

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
        tableau, states, is_finite = self.tableau, [x], [x.isfinite().all()]
        for start, end in pairwise(times):
            x = shifted(x, end - start, tableau.b, stage_slopes(tableau, velocity, x, start, end - start))
            is_finite.append(x.isfinite().all())
            if keep_states:
                states.append(x)
            if on_step is not None:
                on_step(as_time(end, x), x)
        return Solution(
            x,
            velocity.calls,
            states=torch.stack(states) if keep_states else None,
            finiteness=Finiteness(tableau.name, times, torch.stack(is_finite)),
        )


def stage_slopes(tableau: Tableau, velocity: CountedVelocity, x: State, t: float, step: float) -> list[State]:
    """The slopes k_1, k_2, ... of one step."""
    slopes: list[State] = []
    for a, c in zip(tableau.a, tableau.c, strict=True):
        slopes.append(velocity(shifted(x, step, a, slopes), as_time(t + c * step, x)))
    return slopes
