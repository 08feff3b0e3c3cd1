import math

import pytest
import torch

from lediflow.flow.gaussians import bound_logvar, sample, share_at_floor, temper, widen


def test_a_draw_is_mean_plus_sigma_times_noise():
    mean, noise = torch.full((1, 2), 3.0), torch.tensor([[1.0, -2.0]])
    logvar = torch.full((1, 2), 2 * math.log(0.5))
    torch.testing.assert_close(sample(mean, logvar, noise), torch.tensor([[3.5, 2.0]]))


def test_temperature_multiplies_the_standard_deviation():
    logvar = torch.randn(5)
    torch.testing.assert_close((0.5 * temper(logvar, 0.3)).exp(), 0.3 * (0.5 * logvar).exp())


def test_temperature_zero_leaves_the_mean():
    mean, logvar, noise = torch.randn(3, 2, 4)
    torch.testing.assert_close(sample(mean, temper(logvar, 0.0), noise), mean)


@pytest.mark.parametrize("temperature", [-0.5, math.nan, math.inf])
def test_an_invalid_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature .*: give the factor of the standard deviation"):
        temper(torch.zeros(1), temperature)


def test_widening_adds_variances():
    logvar = torch.linspace(-7, 2, 10, dtype=torch.float64)
    torch.testing.assert_close(widen(logvar, 0.3).exp(), logvar.exp() + 0.09)


def test_scaling_multiplies_the_deviation_before_noise_is_added():
    logvar = torch.linspace(-6, 1, 5)
    torch.testing.assert_close(widen(logvar, 0.3, scale=3).exp(), 9 * logvar.exp() + 0.09)
    torch.testing.assert_close(widen(logvar, 0, scale=0.5).exp(), logvar.exp() / 4)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_an_invalid_scale_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale .*: give the factor of the standard deviation"):
        widen(torch.zeros(1), 0.3, scale)


def test_widening_by_nothing_changes_nothing():
    logvar = torch.randn(5)
    assert torch.equal(widen(logvar, 0.0), logvar)


@pytest.mark.parametrize("logvar", [-1e4, 1e4])  # whose exponentials are 0 and infinite
def test_widening_does_not_overflow(logvar):
    expected = max(logvar, 2 * math.log(0.5))
    assert widen(torch.tensor([logvar]), 0.5).item() == pytest.approx(expected)


@pytest.mark.parametrize("widening", [-0.1, math.nan, math.inf])
def test_an_invalid_width_is_refused(widening):
    with pytest.raises(ValueError, match=r"widening .*: give the standard deviation"):
        widen(torch.zeros(1), widening)


@pytest.mark.parametrize("ceiling", [None, 2.0, -6.0])
def test_the_floor_bounds_small_values_and_is_approached_by_them(ceiling):
    raw = torch.linspace(-60, 90, 300, dtype=torch.float64)
    bounded = bound_logvar(raw, floor=-7.0, ceiling=ceiling)
    assert (bounded >= -7.0 - 1e-12).all()  # rounding
    assert bounded[0].item() == pytest.approx(-7.0, abs=1e-12)
    assert (bounded.diff() >= 0).all()


@pytest.mark.parametrize("floor", [-7.0, 1.0])
def test_the_ceiling_bounds_large_values_and_is_approached_by_them(floor):
    raw = torch.tensor([-60.0, 0.0, 2.0, 60.0, 1e30])
    bounded = bound_logvar(raw, floor=floor, ceiling=2.0)
    assert (bounded <= 2.0).all()
    assert bounded[-2:].tolist() == [2.0, 2.0]


def test_smooth_bounds_hardly_change_values_far_from_them():
    raw = torch.linspace(-1, 1, 9, dtype=torch.float64)
    moved = (bound_logvar(raw, floor=-14.0, ceiling=14.0) - raw).abs()
    assert moved.max() < 1e-5  # e^-13 from the nearer bound, and less from the other


def test_bounded_variances_are_a_sum_below_and_in_parallel_above():
    raw = torch.linspace(-9, 4, 20, dtype=torch.float64)
    low, high = math.exp(-7), math.exp(2)
    raised = low * high / (high - low)  # in parallel with the ceiling it is the floor again
    expected = 1 / (1 / (raw.exp() + raised) + 1 / high)
    torch.testing.assert_close(bound_logvar(raw, -7.0, 2.0).exp(), expected)
    torch.testing.assert_close(bound_logvar(raw, -7.0).exp(), raw.exp() + low)


@pytest.mark.parametrize("raw", [-10.0, 5.0], ids=["below the floor", "above the ceiling"])
def test_gradients_outside_the_bounds_are_small_but_alive(raw):
    leaf = torch.tensor([raw], requires_grad=True)
    bound_logvar(leaf, floor=-7.0, ceiling=2.0).backward()
    assert 0 < leaf.grad < 0.06  # e^-3 of the full gradient


def test_a_ceiling_that_is_not_above_the_floor_is_refused():
    with pytest.raises(ValueError, match=r"ceiling -7\.0 is not above the floor -7\.0"):
        bound_logvar(torch.zeros(1), floor=-7.0, ceiling=-7.0)


def test_share_at_floor_counts_per_sample():
    logvar = torch.tensor([[-7.0, -6.95, -3.0, 0.0], [1.0, 1.0, 1.0, -7.0]])
    assert share_at_floor(logvar, floor=-7.0).tolist() == [0.5, 0.25]
