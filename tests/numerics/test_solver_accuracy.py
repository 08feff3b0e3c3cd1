"""Solvers against closed forms, the declared orders, and torchdiffeq."""

import math

import pytest
import torch
from scipy.stats import linregress
from torchdiffeq import odeint

from lediflow.flow.solvers import solve
from lediflow.flow.solvers.tableaus import TABLEAUS

FIXED_STEP = list(TABLEAUS.values())


def decay(x, t):
    """x' = cos(3 t) x, solved by x(t) = x(0) exp(sin(3 t) / 3)."""
    return torch.cos(3 * t) * x


def decay_exact(x):
    return x * math.exp(math.sin(3) / 3)


def quarter_turn(x, t):
    return math.pi / 2 * torch.stack((-x[1], x[0]))


def error_slope(tableau, halvings=range(3, 9)):
    """How fast the logarithm of a quarter turn's error falls with that of the step, by least squares."""
    east, north = torch.eye(2, dtype=torch.float64)
    ends = [solve(quarter_turn, east, solver=tableau.name, steps=2**k).x for k in halvings]
    return -linregress(halvings, [math.log2((end - north).norm()) for end in ends]).slope


@pytest.mark.parametrize("tableau", FIXED_STEP, ids=lambda tableau: tableau.name)
def test_error_falls_at_the_declared_order(tableau):
    assert error_slope(tableau) == pytest.approx(tableau.order, abs=0.15)  # fit noise over 6 halvings


@pytest.mark.parametrize("tableau", FIXED_STEP, ids=lambda tableau: tableau.name)
def test_steps_are_torchdiffeqs(tableau):
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    expected = odeint(lambda t, state: decay(state, t), x, times, method=tableau.name)[-1]
    torch.testing.assert_close(solve(decay, x, solver=tableau.name, steps=5).x, expected)


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


def test_the_exact_velocity_between_gaussians_carries_one_to_the_other():
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
    for solver in TABLEAUS:
        end = solve(lambda state, t: mask * state.sin() + (1 - mask) * (y - x), x, solver=solver, steps=3).x
        torch.testing.assert_close((1 - mask) * end, (1 - mask) * y, atol=1e-6, rtol=0)  # float32 rounding
