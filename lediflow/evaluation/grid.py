"""The settings of the sampler that `mode=grid` and `mode=stages` measure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lediflow.flow.solvers import MOST_STEPS, check_solver, ignores_steps
from lediflow.ranges import bounded, check_ranges
from lediflow.sampling import SamplingConfig

SOLVERS = ("euler", "midpoint", "heun3")  # the default
STEPS = (0, 1, 2, 4, 8)


@dataclass(kw_only=True)
class GridConfig:
    """Every combination is measured; each generates `count` images."""

    # null: euler, midpoint, heun3 (stages: midpoint); dopri5 once, without steps
    solvers: list[str] | None = None
    # 0: draws of the learned prior, once; null: 0, 1, 2, 4, 8
    steps: list[int] | None = bounded(None, at_least=0, at_most=MOST_STEPS, is_filled=True)
    # of the prior; lower values give smoother images
    temperatures: list[float] = bounded(default_factory=lambda: [1.0], at_least=0, is_filled=True)

    def __post_init__(self) -> None:
        check_ranges(self, "grid.")
        if self.solvers == []:
            raise ValueError("grid.solvers=[] is empty; give at least one value")
        for solver in self.solvers or SOLVERS:
            for steps in self.steps or STEPS:
                check_solver(solver, 1 if steps == 0 else steps)


def cells(base: SamplingConfig, grid: GridConfig, *, is_learned: bool) -> list[SamplingConfig]:
    """All combinations in the order of temperatures, solvers and steps, without duplicates.

    0 steps are draws of the prior, with any solver, so they occur once; the Gaussian baseline has none, as its prior is
    noise. An adaptive solver occurs once, since it ignores the number of steps.
    """
    chosen: dict[tuple[str, int, float], SamplingConfig] = {}
    for temperature in grid.temperatures:
        for solver in grid.solvers or SOLVERS:
            for steps in sorted(grid.steps or STEPS):
                key = (solver, steps, temperature)
                if steps == 0:
                    key = ("none", 0, temperature)
                elif ignores_steps(solver):
                    key = (solver, -1, temperature)
                if key not in chosen and (is_learned or steps):
                    chosen[key] = dataclasses.replace(
                        base, solver=solver, steps=steps, temperature=temperature
                    )
    return list(chosen.values())
