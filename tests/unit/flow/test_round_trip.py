import math

import pytest
import torch

from lediflow.flow.solvers import SOLVERS, round_trip_error

X = torch.tensor([[3.0, 4.0], [0.6, 0.8]], dtype=torch.float64)


def growth(x, t):
    return x


def test_the_error_is_what_eulers_steps_miss():
    """n steps of x' = x multiply by (1 + 1/n)^n, backwards by (1 - 1/n)^n."""
    trip = round_trip_error(growth, X, solver="euler", steps=10)
    expected = 1 - (1.1 * 0.9) ** 10
    torch.testing.assert_close(trip.relative_error, torch.full((2,), expected, dtype=X.dtype))
    torch.testing.assert_close(trip.there, X * 1.1**10)
    torch.testing.assert_close(trip.back, X * (1.1 * 0.9) ** 10)
    assert trip.nfe == 20


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "euler"])
def test_the_round_trip_error_of_good_solvers_is_small(solver):
    trip = round_trip_error(growth, X, solver=solver, steps=100, rtol=1e-9, atol=1e-9)
    assert (trip.relative_error < 1e-4).all()
    torch.testing.assert_close(trip.there, X * math.e, rtol=1e-4, atol=0)


def test_integrating_back_over_a_grid_of_times_returns_to_the_start():
    seen = []

    def watched(x, t):
        seen.append(float(t))
        return torch.ones_like(x)

    trip = round_trip_error(watched, X, solver="euler", times=[0.0, 0.1, 1.0])
    assert seen == [0.0, 0.1, 1.0, 0.1]
    assert (trip.relative_error < 1e-15).all()


def test_each_sample_has_its_own_error():
    trip = round_trip_error(lambda x, t: x.square(), X / 10, solver="midpoint", steps=4)
    alone = round_trip_error(lambda x, t: x.square(), X[1:] / 10, solver="midpoint", steps=4)
    assert trip.relative_error[0] > trip.relative_error[1] == alone.relative_error[0] > 0
