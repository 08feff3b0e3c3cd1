"""Which settings a grid is made of."""

import pytest

from lediflow.evaluation.config import GRID_SOLVERS, GridConfig, fitting_solvers
from lediflow.evaluation.modes.grid import cells
from lediflow.sampling import SamplingConfig

BASE = SamplingConfig(seed=3, latent_steps=7)


def settings(grid: GridConfig, *, is_learned: bool = True) -> list[tuple]:
    return [(cell.temperature, cell.solver, cell.steps) for cell in cells(BASE, grid, is_learned=is_learned)]


def test_settings_are_ordered_by_temperature_then_solver_then_steps():
    grid = GridConfig(solvers=["midpoint", "euler"], steps=[4, 1], temperatures=[1.0, 0.8])
    assert settings(grid) == [
        (temperature, solver, steps)
        for temperature in (1.0, 0.8)
        for solver in ("midpoint", "euler")
        for steps in (1, 4)
    ]


def test_the_prior_alone_has_one_row_per_temperature():
    grid = GridConfig(solvers=["euler", "heun3"], steps=[2, 0], temperatures=[1.0, 0.8])
    priors = [(temperature, steps) for temperature, _, steps in settings(grid) if steps == 0]
    assert priors == [(1.0, 0), (0.8, 0)]
    assert len(settings(grid)) == 2 * (1 + 2)


def test_zero_steps_are_not_a_setting_of_the_gaussian_baseline():
    grid = GridConfig(solvers=["euler"], steps=[0, 1, 2])
    assert settings(grid, is_learned=False) == [(1.0, "euler", 1), (1.0, "euler", 2)]


def test_an_adaptive_solver_has_one_row():
    grid = GridConfig(solvers=["dopri5", "euler"], steps=[1, 2])
    assert [solver for _, solver, _ in settings(grid)] == ["dopri5", "euler", "euler"]


def test_a_repeated_setting_is_measured_once():
    assert settings(GridConfig(solvers=["euler", "euler"], steps=[2, 2])) == [(1.0, "euler", 2)]


def test_everything_else_is_the_commands():
    assert {(cell.seed, cell.latent_steps) for cell in cells(BASE, GridConfig(), is_learned=True)} == {(3, 7)}


ASKED = ["euler", "jump"]


@pytest.mark.parametrize(
    ("asked", "is_flow_map", "is_alone", "expected"),
    [
        (None, False, True, ["euler", "midpoint", "heun3"]),
        (None, True, True, ["jump"]),
        (ASKED, False, False, ["euler"]),
        (ASKED, True, False, ["jump"]),
        (ASKED, True, True, ASKED),  # to be refused, because euler does not fit
        (["euler"], True, False, ["euler"]),
    ],
)
def test_a_run_is_measured_with_the_solvers_that_fit_it(asked, is_flow_map, is_alone, expected):
    found = fitting_solvers(asked, GRID_SOLVERS, is_flow_map=is_flow_map, is_alone=is_alone)
    assert found == expected


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"solvers": ["eulr"]}, "did you mean 'euler'"),
        ({"steps": [1, -2]}, r"grid\.steps\[1\]=-2 must be at least 0"),
        ({"solvers": []}, "at least one value"),
        ({"steps": []}, "at least one value"),
        ({"temperatures": []}, "at least one value"),
    ],
)
def test_an_invalid_grid_is_refused_before_any_work(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        GridConfig(**options)
