"""The width of `auto`, where the prior and the images are known: expected values are those of normal distributions."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from lediflow.flow.widening import (
    FACTOR,
    LEAST,
    MEAN_LOG,
    WIDEST,
    Spread,
    automatic_width,
    log_spreads,
    typical_spread,
)

SHAPE = (16, 3, 32, 32)  # 49,152 draws: their mean logarithm is known to 0.005


def normal(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def logvar(sigma):
    return torch.full(SHAPE, 2 * math.log(sigma))


def spread_of(residual, said):
    return typical_spread(log_spreads(residual, torch.zeros(SHAPE), said))


def test_the_constant_is_the_mean_logarithm_of_a_normal_draw_above_the_limit():
    integral = quad(lambda n: 2 * norm.pdf(n) * math.log(max(n, LEAST)), 0, LEAST)[0]
    integral += quad(lambda n: 2 * norm.pdf(n) * math.log(n), LEAST, math.inf)[0]
    assert pytest.approx(integral, abs=1e-9) == MEAN_LOG


@pytest.mark.parametrize("sigma", [0.03, 0.2, 7.0])
def test_the_residual_of_a_calibrated_prior_is_its_sigma(sigma):
    found = spread_of(sigma * normal(), logvar(sigma))
    assert found.sigma == pytest.approx(sigma)
    assert found.residual == pytest.approx(sigma, rel=0.02)


def test_typical_sigma_and_residual_are_geometric_means():
    widths = torch.tensor([0.05, 0.2]).repeat_interleave(16).expand(SHAPE)
    found = spread_of(widths * normal(), 2 * widths.log())
    assert found.sigma == pytest.approx(0.1)
    assert found.residual == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_an_overconfident_prior_shows_only_in_the_residual(factor):
    """E ln max(factor |n|, c) = E ln factor |n| up to the draws below c, of which there are fewer."""
    found = spread_of(factor * 0.1 * normal(), logvar(0.1))
    assert found.sigma == pytest.approx(0.1)
    # what the limit adds to m and no longer to these draws
    below = 2 * norm.pdf(0) * LEAST * (1 - 1 / factor)
    assert found.residual == pytest.approx(0.1 * factor * math.exp(-below), rel=0.02)
    assert automatic_width(found) == pytest.approx(FACTOR * found.residual, rel=0.05)  # two digits


def test_pixels_equal_to_the_mean_do_not_dominate():
    """Half of the pixels are flat: their logarithms end at the limit, and the width is that of what the prior says."""
    flat = torch.arange(32).ge(16).expand(SHAPE)
    found = spread_of((0.1 * normal()).masked_fill(flat, 0.0), logvar(0.1))
    assert math.isfinite(found.residual)
    assert found.residual == pytest.approx(0.1 * math.exp(0.5 * (math.log(LEAST) - MEAN_LOG)), rel=0.02)
    assert automatic_width(found) == pytest.approx(FACTOR * 0.1, rel=0.05)


def test_images_have_equal_weight_in_any_division_into_batches():
    y, said = 0.1 * normal(), logvar(0.1)
    parts = [
        log_spreads(y[i : i + 5], torch.zeros_like(y[i : i + 5]), said[i : i + 5]) for i in range(0, 16, 5)
    ]
    assert torch.equal(torch.cat(parts), log_spreads(y, torch.zeros(SHAPE), said))


@pytest.mark.parametrize(
    ("spread", "width"),
    [
        (Spread(0.0704, 0.0588), 0.19),
        (Spread(0.1, 0.2), 0.55),
        (Spread(3.0, 0.1), WIDEST),
        (Spread(0.0011, 0.0), 0.003),
    ],
)
def test_the_width_is_a_multiple_of_the_larger_one_in_two_digits(spread, width):
    assert automatic_width(spread) == width


@pytest.mark.parametrize(("scale", "width"), [(1.0, 0.28), (0.5, 0.28), (3.0, 0.15), (1.5, 0.15)])
def test_less_is_added_to_a_prior_that_is_also_multiplied(scale, width):
    assert automatic_width(Spread(0.1, 0.08), scale) == width


def test_rounding_removes_differences_between_devices():
    assert automatic_width(Spread(0.0704, 0.0588)) == automatic_width(Spread(0.0704 * 1.001, 0.0588))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_prior_that_diverged_is_refused(broken):
    with pytest.raises(ValueError, match=r"has diverged; train it again"):
        automatic_width(Spread(0.1, broken))
