"""Jumps of a flow map whose paths are known: between two Gaussians the map is affine."""

import pytest
import torch

from lediflow.flow.solvers import jump, solve

MEAN, SIGMA, TAU = 0.7, 0.5, 2.0  # from N(0, SIGMA^2) to N(MEAN, TAU^2)


def deviation(t):
    """The standard deviation of x_t on the straight path between independent draws."""
    return ((1 - t) ** 2 * SIGMA**2 + t**2 * TAU**2) ** 0.5


def flow_map(x, t, s):
    """The exact mean velocity: a path keeps its number of standard deviations from the mean t MEAN."""
    if torch.equal(t, s):
        return velocity(x, t)
    there = s * MEAN + deviation(s) / deviation(t) * (x - t * MEAN)
    return (there - x) / (s - t)


def velocity(x, t):
    slope = (t * TAU**2 - (1 - t) * SIGMA**2) / deviation(t) ** 2
    return MEAN + slope * (x - t * MEAN)


X_0 = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_an_exact_map_arrives_where_its_ode_does_with_any_number_of_jumps(steps):
    found = jump(flow_map, SIGMA * X_0, steps=steps)
    torch.testing.assert_close(found.x, MEAN + TAU * X_0)
    exact = solve(velocity, SIGMA * X_0, solver="rk4", steps=200).x
    torch.testing.assert_close(found.x, exact, rtol=0, atol=1e-8)
    assert found.nfe == steps


def test_jumps_go_from_time_to_time():
    seen = []

    def constant(x, t, s):
        seen.append((float(t), float(s)))
        return torch.ones_like(x)

    torch.testing.assert_close(jump(constant, X_0, steps=4).x, X_0 + 1)
    torch.testing.assert_close(jump(constant, X_0, times=[0.25, 0.5]).x, X_0 + 0.25)
    assert seen == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0), (0.25, 0.5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t0": 1.0, "t1": 0.0}, "trained for jumps towards data; integrate its velocity"),
        ({"times": [1.0, 0.5]}, "trained for jumps towards data"),
        ({"steps": 0}, "give 1 or more"),
    ],
)
def test_jumps_that_no_map_is_trained_for_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jump(flow_map, X_0, **options)


def test_a_jump_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match=r"no longer finite after step 1 of 2, from t = 0 to 0\.5"):
        jump(lambda x, t, s: x / 0, X_0, steps=2)


def test_the_solver_of_an_ode_has_no_jumps():
    with pytest.raises(ValueError, match="'jump' is for flow maps"):
        solve(velocity, X_0, solver="jump")
