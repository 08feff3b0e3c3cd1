import math

import pytest
import torch

from lediflow.flow.solvers import SOLVERS, check_solver, solve
from lediflow.flow.solvers.fixed import FixedStep
from lediflow.flow.solvers.problem import largest_number
from lediflow.flow.solvers.tableaus import DOPRI5, EmbeddedPair

FIXED_STEP = [solver.tableau for solver in SOLVERS.values() if isinstance(solver, FixedStep)]


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
    assert sum(DOPRI5.error) == pytest.approx(0)


@pytest.mark.parametrize("change", [{"c": (0, 1 / 2)}, {"a": ((), (1 / 2,))}, {"error": (1,)}], ids=str)
def test_a_pair_must_end_with_the_slope_that_begins_the_next_step(change):
    euler_heun = {"a": ((), (1,)), "b": (1, 0), "c": (0, 1), "error": (1 / 2, -1 / 2)}
    assert EmbeddedPair(name="euler", order=1, **euler_heun).stages == 2
    with pytest.raises(ValueError, match="last stage"):
        EmbeddedPair(name="euler", order=1, **(euler_heun | change))


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


@pytest.mark.parametrize("tableau", FIXED_STEP, ids=lambda tableau: tableau.name)
def test_fixed_steps_give_the_velocity_one_time_for_all(tableau):
    def checked(x, t):
        assert t.shape == () and t.dtype == x.dtype and 0 <= t <= 1
        return swirl(x, t)

    solve(checked, start().float(), solver=tableau.name, steps=2)


@pytest.mark.parametrize("t1", [1.0, 1e-7], ids=["long", "short"])
@pytest.mark.parametrize("is_backwards", [False, True], ids=["forwards", "backwards"])
def test_dopri5_gives_the_velocity_one_time_for_each_sample(is_backwards, t1):
    def checked(x, t):
        assert t.shape == (2,) and t.dtype == x.dtype and ((t >= 0) & (t <= torch.tensor(t1))).all()
        return swirl(x, t)

    ends = {"t0": t1, "t1": 0.0} if is_backwards else {"t0": 0.0, "t1": t1}
    solve(checked, start().float(), solver="dopri5", **ends)


@pytest.mark.parametrize("solver", SOLVERS)
def test_times_are_not_rounded_to_the_dtype_of_a_coarse_state(solver):
    times = [0.0, 0.123456]

    def checked(x, t):
        assert t.dtype == torch.float32
        return torch.ones_like(x)

    solve(checked, start().bfloat16(), solver=solver, times=times, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_step_is_reported_up_to_the_end(solver):
    seen = []
    solution = solve(swirl, start(), solver=solver, steps=4, on_step=lambda t, x: seen.append((t, x)))
    times = torch.stack([t for t, _ in seen])
    assert (times.diff(dim=0) >= 0).all() and (times[-1] == 1.0).all()
    assert torch.equal(seen[-1][1], solution.x)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("times", [[0.0, 0.1, 0.6, 1.0], [1.0, 0.7, 0.65, 0.0]], ids=["up", "down"])
def test_a_grid_of_times_is_integrated_interval_by_interval(solver, times):
    options = {"solver": solver, "steps": 1, "rtol": 1e-10, "atol": 1e-10}
    whole = solve(swirl, start(), times=torch.tensor(times, dtype=torch.float64), keep_states=True, **options)
    x = start()
    for place in range(1, 4):
        x = solve(swirl, x, t0=times[place - 1], t1=times[place], **options).x
        torch.testing.assert_close(whole.states[place], x, atol=1e-9, rtol=0)  # dopri5's first steps differ
    assert torch.equal(whole.states[0], start()) and torch.equal(whole.states[-1], whole.x)


def test_a_grid_of_times_replaces_steps_and_both_ends():
    given = solve(swirl, start(), solver="rk4", times=[0.2, 0.4, 0.6], steps=99, t0=5.0, t1=7.0)
    assert torch.equal(given.x, solve(swirl, start(), solver="rk4", times=(0.2, 0.4, 0.6)).x)
    torch.testing.assert_close(given.x, solve(swirl, start(), solver="rk4", steps=2, t0=0.2, t1=0.6).x)
    assert given.nfe == 8


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.5], "times has 1 entries"),
        ([0.0, 0.5, 0.5, 1.0], r"times\[1\] = 0.5, times\[2\] = 0.5.*all rise, or all fall"),
        ([0.0, 0.5, 0.4], r"times\[1\] = 0.5, times\[2\] = 0.4"),
        ([1.0, 0.5, 0.6], r"times\[1\] = 0.5, times\[2\] = 0.6"),
        ([0.0, float("nan")], r"times\[1\] = nan"),
        ([0.0, float("inf")], r"times\[1\] = inf"),
    ],
)
@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_a_grid_of_times_that_is_not_monotone_is_refused_with_the_index(solver, times, message):
    with pytest.raises(ValueError, match=message):
        solve(swirl, start(), solver=solver, times=times)


def test_tighter_tolerances_need_more_evaluations_and_are_more_accurate():
    exact = solve(swirl, start(), solver="rk4", steps=1000).x
    loose, tight = (solve(swirl, start(), solver="dopri5", rtol=tol, atol=tol) for tol in (1e-3, 1e-9))
    assert loose.nfe < tight.nfe
    assert (tight.x - exact).abs().max() < 1e-8 < (loose.x - exact).abs().max() < 1e-2


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_empty_interval_costs_nothing(solver):
    solution = solve(swirl, start(), solver=solver, t0=0.4, t1=0.4)
    assert solution.nfe == 0 and torch.equal(solution.x, start())


def test_an_unknown_solver_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'huen3': known are euler.*did you mean 'heun3'"):
        solve(swirl, start(), solver="huen3")
    with pytest.raises(ValueError, match=r"solver None: known are euler"):
        solve(swirl, start(), solver=None)


@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_a_state_of_integers_is_refused(solver):
    with pytest.raises(ValueError, match=rf"'{solver}': x is of torch.int64; give floating-point numbers"):
        solve(lambda x, t: -x, torch.ones(2, 3, dtype=torch.int64), solver=solver)


@pytest.mark.parametrize("ends", [(0.0, float("inf")), (float("nan"), 1.0)], ids=str)
@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_an_interval_without_an_end_is_refused(solver, ends):
    with pytest.raises(ValueError, match=rf"t0 = {ends[0]}, t1 = {ends[1]}: .*two finite times"):
        solve(swirl, start(), solver=solver, t0=ends[0], t1=ends[1])


REFUSING = [check_solver, lambda solver, steps: solve(swirl, start(), solver=solver, steps=steps)]


@pytest.mark.parametrize("refusing", REFUSING, ids=["check_solver", "solve"])
@pytest.mark.parametrize("steps", [0, -1])
@pytest.mark.parametrize("solver", SOLVERS)
def test_less_than_a_step_is_refused(solver, steps, refusing):
    with pytest.raises(ValueError, match=rf"'{solver}' with {steps} steps: steps < 1.*1 or more"):
        refusing(solver, steps)


@pytest.mark.parametrize("refusing", REFUSING, ids=["check_solver", "solve"])
@pytest.mark.parametrize("steps", [2.5, None, "4"])
def test_steps_that_are_not_a_whole_number_are_refused(steps, refusing):
    with pytest.raises(ValueError, match=rf"'euler' with steps={steps!r}: give a whole number of steps"):
        refusing("euler", steps)


@pytest.mark.parametrize("steps", [1, 99, None])
def test_dopri5_ignores_steps(steps):
    found = solve(swirl, start(), solver="dopri5", steps=steps)
    assert torch.equal(found.x, solve(swirl, start(), solver="dopri5").x)


@pytest.mark.parametrize(
    ("rtol", "atol"), [(-1e-3, 1e-3), (1e-3, -1e-3), (0.0, 0.0), (float("nan"), 1.0), (1e-3, float("inf"))]
)
def test_tolerances_that_cannot_be_met_are_refused(rtol, atol):
    with pytest.raises(ValueError, match=f"rtol = {rtol}, atol = {atol}"):
        solve(swirl, start(), solver="dopri5", rtol=rtol, atol=atol)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_velocity_of_another_shape_is_refused(solver):
    with pytest.raises(ValueError, match=r"gave shape \(2, 1\) for x of \(2, 2\)"):
        solve(lambda x, t: x[:, :1], start(), solver=solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_start_that_is_not_finite_is_named_as_such(solver):
    x = start()
    x[1, 0] = torch.inf
    with pytest.raises(ValueError, match="at the start"):
        solve(swirl, x, solver=solver)


def test_the_step_in_which_x_stops_being_finite_is_named():
    def breaking(x, t):
        return x / (t < 0.6)  # a division by zero later

    with pytest.raises(ValueError, match=r"midpoint: .* after step 3 of 4, from t = 0.5 to 0.75"):
        solve(breaking, start(), solver="midpoint", steps=4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 5000])
def test_one_number_that_is_not_finite_is_found(bad, place):
    x = torch.full((2, 3000), -2.0)
    assert float(largest_number(x)) == 2
    x.view(-1)[place] = bad
    assert not largest_number(x).isfinite()
    assert largest_number(x[:0]).isfinite()
