"""Paths of a teacher and the loss of a flow map, between two Gaussians, where velocity and map are known."""

import pytest
import torch

from lediflow.flow.maps import (
    RESIDUAL_SHARE,
    adaptive_loss,
    draw_interval,
    draw_pairs,
    draw_path_times,
    eulerian_target,
    midpoint_path,
)
from lediflow.flow.noise import SampleNoise

MEAN, SIGMA, TAU = 0.7, 0.5, 1.5  # from N(0, SIGMA^2) to N(MEAN, TAU^2)
IDS, NOISE = torch.tensor([3, 11, 4, 90, 7]), SampleNoise(2)
X_0 = SIGMA * torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def deviation(t):
    """The standard deviation of x_t on the straight path between independent draws."""
    return ((1 - t) ** 2 * SIGMA**2 + t**2 * TAU**2) ** 0.5


def velocity(x, t):
    t = t[:, None]
    return MEAN + (t * TAU**2 - (1 - t) * SIGMA**2) / deviation(t) ** 2 * (x - t * MEAN)


def flow_map(x, t, s):
    """The exact mean velocity: a path keeps its number of standard deviations from the mean t MEAN."""
    t, s = t[:, None], s[:, None]
    return (s * MEAN + deviation(s) / deviation(t) * (x - t * MEAN) - x) / (s - t)


def regression_error(steps, pairs):
    """Largest difference between the exact map and what is learned from paths of the exact velocity."""
    times = draw_path_times(NOISE, IDS, steps)
    states, rows, found = midpoint_path(velocity, X_0, times), torch.arange(5), []
    for i, j in zip(*draw_pairs(NOISE, IDS, steps, pairs), strict=True):
        t, s = times[rows, i], times[rows, j]
        target = (states[j, rows] - states[i, rows]) / (s - t)[:, None]
        found.append((target - flow_map(states[i, rows], t, s)).abs().max())
    return float(max(found))


def test_the_exact_flow_map_is_the_minimum_of_the_regression_on_paths():
    """Up to the midpoint rule's error, which falls at least with the square of the step."""
    errors = {steps: regression_error(steps, pairs=8) for steps in (16, 64)}
    assert errors[64] < 1e-3
    assert errors[64] < errors[16] / 3**2


def test_times_of_a_path_run_from_0_to_1_and_differ_between_samples():
    times = draw_path_times(NOISE, IDS, 4)
    assert times[:, 0].tolist() == [0] * 5 and times[:, -1].tolist() == [1] * 5
    assert (times.diff(dim=1) >= 0.2 / 4 - 1e-6).all()
    assert len(set(times[:, 1:-1].flatten().tolist())) == 5 * 3
    assert len(set((times[:, 3] - times[:, 2]).tolist())) == 5  # jumps have any length
    assert draw_path_times(NOISE, IDS, 1).tolist() == [[0, 1]] * 5


def test_times_and_pairs_of_a_sample_do_not_depend_on_its_batch():
    assert torch.equal(draw_path_times(NOISE, IDS[2:3], 4), draw_path_times(NOISE, IDS, 4)[2:3])
    for alone, together in zip(draw_pairs(NOISE, IDS[2:3], 4, 3), draw_pairs(NOISE, IDS, 4, 3), strict=True):
        assert torch.equal(alone, together[:, 2:3])


def test_the_first_pair_is_the_whole_path_and_the_others_are_any():
    i, j = draw_pairs(NOISE, torch.arange(2000), 3, 2)
    assert i[0].unique().tolist() == [0] and j[0].unique().tolist() == [3]
    counts = torch.stack((i[1], j[1])).unique(dim=1, return_counts=True)
    assert counts[0].T.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert ((counts[1] - 2000 / 6).abs() < 5 * (2000 / 6) ** 0.5).all()


def test_the_exact_flow_map_fulfils_the_eulerian_identity():
    """u = v + (s - t) du/dt, with the sign that belongs to data at t = 1; the derivative is exact."""
    x = X_0.double()
    t, s = (torch.full((5,), time, dtype=torch.float64) for time in (0.2, 0.9))
    v = velocity(x, t)
    change = torch.func.jvp(lambda x, t: flow_map(x, t, s), (x, t), (v, torch.ones_like(t)))[1]
    torch.testing.assert_close(eulerian_target(v, change, t, s), flow_map(x, t, s))


def test_an_interval_is_two_uniform_draws_in_order():
    t, s = draw_interval(NOISE, torch.arange(20_000))
    assert (t < s).all()
    assert t.mean() == pytest.approx(1 / 3, abs=0.01) and s.mean() == pytest.approx(2 / 3, abs=0.01)
    assert torch.equal(draw_interval(NOISE, IDS[2:3])[1], draw_interval(NOISE, IDS)[1][2:3])


def test_the_adaptive_loss_counts_as_much_as_its_scale_until_the_error_is_small():
    scale = torch.tensor([0.5, 0.5, 0.5])
    error = torch.tensor([100.0, 1.0, 1e-6], requires_grad=True)
    loss = adaptive_loss(error, scale)
    torch.testing.assert_close(loss[:2], torch.tensor([0.5, 0.5 / 1.05]), rtol=1e-3, atol=0)
    loss.sum().backward()
    expected = scale / (error.detach() + RESIDUAL_SHARE * scale)
    torch.testing.assert_close(error.grad, expected)
    assert error.grad[2] == pytest.approx(1 / RESIDUAL_SHARE, rel=1e-3)


def test_the_adaptive_loss_is_finite_where_nothing_is_left_to_learn():
    assert not adaptive_loss(torch.zeros(2), torch.zeros(2)).any()
