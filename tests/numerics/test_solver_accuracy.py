"""Solvers against closed forms, the declared orders, and torchdiffeq."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import linregress
from torchdiffeq import odeint

from lediflow.flow.solvers import SOLVERS, solve
from lediflow.flow.solvers.adaptive import try_step
from lediflow.flow.solvers.fixed import FixedStep
from lediflow.flow.solvers.problem import CountedVelocity
from lediflow.flow.solvers.tableaus import DOPRI5

FIXED_STEP = [solver.tableau for solver in SOLVERS.values() if isinstance(solver, FixedStep)]


def decay(x, t):
    """x' = cos(3 t) x, solved by x(t) = x(0) exp(sin(3 t) / 3)."""
    return torch.cos(3 * t) * x


def decay_exact(x):
    return x * math.exp(math.sin(3) / 3)


def quarter_turn(x, t):
    return math.pi / 2 * torch.stack((-x[1], x[0]))


def quarter_turn_of(tableau, steps):
    """East, turned by so many equal steps."""
    east = torch.tensor([1.0, 0.0], dtype=torch.float64)
    if tableau is not DOPRI5:
        return solve(quarter_turn, east, solver=tableau.name, steps=steps).x
    velocity, x, times = (
        CountedVelocity(quarter_turn),
        east,
        torch.linspace(0, 1, steps + 1, dtype=east.dtype),
    )
    for start, end in pairwise(times):
        x = try_step(DOPRI5, velocity, x, quarter_turn(x, start), start, end).x
    return x


def error_slope(tableau, halvings=range(3, 9)):
    """How fast the logarithm of a quarter turn's error falls with that of the step, by least squares."""
    north = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ends = [quarter_turn_of(tableau, 2**k) for k in halvings]
    return -linregress(halvings, [math.log2((end - north).norm()) for end in ends]).slope


@pytest.mark.parametrize("tableau", FIXED_STEP, ids=lambda tableau: tableau.name)
def test_error_falls_at_the_declared_order(tableau):
    assert error_slope(tableau) == pytest.approx(tableau.order, abs=0.15)  # fit noise over 6 halvings


def test_a_step_of_dopri5_has_the_declared_order():
    # Fewer halvings: below 2^-7 the error is float64's rounding.
    assert error_slope(DOPRI5, range(2, 7)) == pytest.approx(DOPRI5.order, abs=0.15)


GRIDS = {
    "equal": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    "unequal": [0.0, 0.05, 0.3, 0.35, 0.9, 1.0],
    "backwards": [1.0, 0.9, 0.35, 0.3, 0.05, 0.0],
}


def states_of_both(solver, grid, **options):
    """x at every time of the grid: torchdiffeq's and ours."""
    times = torch.tensor(grid, dtype=options.pop("dtype"))
    x = torch.linspace(-1, 1, 7, dtype=times.dtype)
    expected = odeint(lambda t, state: decay(state, t), x, times, method=solver, **options)
    return expected, solve(decay, x, solver=solver, times=times, keep_states=True, **options).states


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_state_is_torchdiffeqs(solver, grid):
    expected, found = states_of_both(solver, grid, dtype=torch.float64, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("tableau", FIXED_STEP, ids=lambda tableau: tableau.name)
def test_every_state_in_float32_is_torchdiffeqs(tableau, grid):
    expected, found = states_of_both(tableau.name, grid, dtype=torch.float32)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_dopri5_in_float32_is_right_to_its_rounding(grid):
    """Here the closed form is the reference: torchdiffeq's interpolated states are off by some 1e-6."""
    x = torch.linspace(-1, 1, 7)
    found = solve(decay, x, solver="dopri5", times=grid, keep_states=True, rtol=1e-7, atol=1e-7).states
    expected = [x * math.exp((math.sin(3 * t) - math.sin(3 * grid[0])) / 3) for t in grid]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-6, rtol=0)


def test_a_batch_is_solved_as_torchdiffeq_solves_its_samples_one_by_one():
    rates = torch.tensor([[0.5], [4.0], [-2.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0], [0.3, -0.1], [2.0, 0.0]], dtype=torch.float64)
    found = solve(lambda x, t: rates * x * t.cos()[:, None], x, solver="dopri5", rtol=1e-9, atol=1e-9).x
    span = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for row, rate, start in zip(found, rates, x, strict=True):
        field = odeint(lambda t, state, rate=rate: rate * state * t.cos(), start, span, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(row, field[-1], atol=1e-6, rtol=0)


def test_dopri5_keeps_its_tolerance_and_spends_no_more_than_torchdiffeq():
    x, calls = torch.linspace(-1, 1, 7, dtype=torch.float64), []

    def counted(t, state):
        calls.append(t)
        return decay(state, t)

    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    odeint(counted, x, times, method="dopri5", rtol=1e-6, atol=1e-6)
    found = solve(decay, x, solver="dopri5", rtol=1e-6, atol=1e-6)
    assert (found.x - decay_exact(x)).abs().max() < 1e-5  # a few steps of 1e-6 each
    assert found.nfe <= 1.25 * len(calls)


def test_the_exact_velocity_maps_one_gaussian_to_the_other():
    """Rectified flow from N(0, 1) to N(m, s^2), independently paired: v = E[x_1 - x_0 | x_t] is known."""
    m, s = 2.0, 0.3

    def velocity(x, t):
        variance = (1 - t) ** 2 + (t * s) ** 2
        return m + (t * s**2 - (1 - t)) / variance * (x - t * m)

    x_0 = torch.linspace(-2, 2, 9, dtype=torch.float64)
    found = solve(velocity, x_0, solver="rk4", steps=64).x
    torch.testing.assert_close(found, m + s * x_0, atol=1e-6, rtol=0)  # fourth order at h = 1/64


def test_pixels_whose_velocity_is_constant_end_on_their_target():
    """Eq. 7 of arXiv:2505.20723: inpainting leaves the known pixels at y, to rounding, with any solver."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    for solver in (tableau.name for tableau in FIXED_STEP):
        end = solve(lambda state, t: mask * state.sin() + (1 - mask) * (y - x), x, solver=solver, steps=3).x
        torch.testing.assert_close((1 - mask) * end, (1 - mask) * y, atol=1e-6, rtol=0)  # float32 rounding
