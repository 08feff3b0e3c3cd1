import pytest
import torch

from lediflow.flow.solvers import SOLVERS, solve
from lediflow.flow.solvers.tableaus import DOPRI5, DOPRI5_ERROR, TABLEAUS

FIXED_STEP = list(TABLEAUS.values())


def swirl(x, t):
    """A smooth field without symmetry in time."""
    return torch.stack((-x[..., 1], x[..., 0] * (1 + t)), dim=-1)


def start():
    return torch.tensor([[1.0, 0.0], [0.3, -0.8]], dtype=torch.float64)


@pytest.mark.parametrize("tableau", [*FIXED_STEP, DOPRI5], ids=lambda tableau: tableau.name)
def test_tableaus_are_consistent(tableau):
    assert sum(tableau.b) == pytest.approx(1)
    for row, c in zip(tableau.a, tableau.c, strict=True):
        assert sum(row) == pytest.approx(c)


def test_the_error_weights_of_dopri5_cancel_on_a_constant_field():
    assert sum(DOPRI5_ERROR) == pytest.approx(0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_constant_velocity_is_integrated_exactly(solver, steps):
    shift = torch.tensor([0.5, -2.0], dtype=torch.float64)
    solution = solve(lambda x, t: shift.expand_as(x), start(), solver=solver, steps=steps)
    torch.testing.assert_close(solution.x, start() + shift, atol=1e-14, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_running_backwards_returns_to_the_start(solver):
    there = solve(swirl, start(), solver=solver, steps=200)
    back = solve(swirl, there.x, solver=solver, steps=200, t0=1.0, t1=0.0)
    tolerance = 1e-2 if solver == "euler" else 1e-4
    torch.testing.assert_close(back.x, start(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nfe_counts_the_velocitys_evaluations(solver):
    calls = []

    def counted(x, t):
        calls.append(t)
        return swirl(x, t)

    assert solve(counted, start(), solver=solver, steps=3).nfe == len(calls)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_velocity_gets_a_scalar_time_beside_x(solver):
    def checked(x, t):
        assert t.shape == () and t.dtype == x.dtype and 0 <= t <= 1
        return swirl(x, t)

    solve(checked, start().float(), solver=solver, steps=2)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_step_is_reported_up_to_the_end(solver):
    seen = []
    solution = solve(swirl, start(), solver=solver, steps=4, on_step=lambda t, x: seen.append((t, x)))
    times = [t for t, _ in seen]
    assert times == sorted(times) and times[-1] == 1.0
    assert torch.equal(seen[-1][1], solution.x)


@pytest.mark.parametrize("tableau", FIXED_STEP, ids=lambda tableau: tableau.name)
def test_no_steps_leave_x_as_it_is(tableau):
    solution = solve(swirl, start(), solver=tableau.name, steps=0)
    assert torch.equal(solution.x, start()) and solution.nfe == 0


def test_tighter_tolerances_cost_evaluations_and_buy_accuracy():
    exact = solve(swirl, start(), solver="rk4", steps=1000).x
    loose, tight = (solve(swirl, start(), solver="dopri5", rtol=tol, atol=tol) for tol in (1e-3, 1e-9))
    assert loose.nfe < tight.nfe
    assert (tight.x - exact).abs().max() < 1e-8 < (loose.x - exact).abs().max() < 1e-2


def test_an_empty_interval_costs_nothing():
    assert solve(swirl, start(), solver="dopri5", t0=0.4, t1=0.4).nfe == 0


def test_a_velocity_that_is_not_finite_is_named_as_such():
    with pytest.raises(ValueError, match=r"dopri5 at t = 0.*check that the velocity is finite"):
        solve(lambda x, t: x * torch.nan, start(), solver="dopri5")


def test_an_unknown_solver_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'huen3': known are euler.*did you mean 'heun3'"):
        solve(swirl, start(), solver="huen3")


def test_negative_steps_are_refused():
    with pytest.raises(ValueError, match="-1 steps: give 0"):
        solve(swirl, start(), steps=-1)
