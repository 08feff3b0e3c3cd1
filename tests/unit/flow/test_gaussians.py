import math

import torch

from lediflow.flow.gaussians import floor_logvar, sample, share_at_floor, temper


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


def test_the_floor_is_never_crossed_and_hardly_felt_above():
    raw = torch.linspace(-60, 3, 200, dtype=torch.float64)
    floored = floor_logvar(raw, floor=-7.0)
    assert (floored >= -7.0).all()
    assert (floored - raw)[-1] < 1e-4  # e^-10: what softplus adds ten above the floor
    assert (floored.diff() >= 0).all()


def test_gradients_below_the_floor_are_small_but_alive():
    raw = torch.tensor([-10.0], requires_grad=True)
    floor_logvar(raw, floor=-7.0).backward()
    assert 0 < raw.grad < 0.05


def test_share_at_floor_counts_per_sample():
    logvar = torch.tensor([[-7.0, -6.95, -3.0, 0.0], [1.0, 1.0, 1.0, -7.0]])
    assert share_at_floor(logvar, floor=-7.0).tolist() == [0.5, 0.25]
