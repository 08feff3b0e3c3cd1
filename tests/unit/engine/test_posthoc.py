"""Averages made afterwards, against averages that were kept all along."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from lediflow.engine.ema import EMAConfig, decays_for, gamma_of, role_of
from lediflow.engine.posthoc import Profile, coefficients, misfit, overlap, profile

IMAGES, BATCH, EVERY = 20_000, 10, 1_000


def weight_at(images):
    """A weight that wanders and drifts, as weights do."""
    return math.sin(images / 2_500) + images / IMAGES


def kept(sigma_rel):
    """The average of that weight at every place where one is stored."""
    config, average, stored = EMAConfig(sigma_rels=[sigma_rel]), 0.0, {}
    for images in range(BATCH, IMAGES + BATCH, BATCH):
        decay = decays_for(config, images, BATCH)[role_of(sigma_rel)]
        average = decay * average + (1 - decay) * weight_at(images)
        if images % EVERY == 0:
            stored[images] = average
    return stored


@pytest.fixture(scope="module")
def stored():
    return [(profile(width, place), value) for width in (0.05, 0.10) for place, value in kept(width).items()]


def made_afterwards(stored, sigma_rel, images=IMAGES):
    known = [(one, value) for one, value in stored if one.images_seen <= images]
    shares = coefficients([one for one, _ in known], profile(sigma_rel, images))
    return float(np.dot(shares, [value for _, value in known]))


@pytest.mark.parametrize("sigma_rel", [0.05, 0.10])
def test_a_width_that_was_kept_comes_back_exactly(stored, sigma_rel):
    assert made_afterwards(stored, sigma_rel) == pytest.approx(kept(sigma_rel)[IMAGES], rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.04, 0.07, 0.09, 0.12, 0.15])
def test_other_widths_are_those_of_averages_that_were_kept_all_along(stored, sigma_rel):
    # the fit of twenty places leaves 2e-3 of a weight that moves over a range of 2; a wrong width is off by 0.05
    assert made_afterwards(stored, sigma_rel) == pytest.approx(kept(sigma_rel)[IMAGES], abs=2e-3)


def test_an_average_may_end_before_the_run_does(stored):
    assert made_afterwards(stored, 0.07, images=12_000) == pytest.approx(kept(0.07)[12_000], abs=2e-3)


@pytest.mark.parametrize(
    ("left", "right"), [((17.0, 0.6), (7.0, 1.0)), ((7.0, 1.0), (7.0, 1.0)), ((2.0, 0.3), (9.0, 0.3))]
)
def test_the_overlap_of_two_densities_is_the_integral_of_their_product(left, right):
    def density(tau, gamma, end):
        return (gamma + 1) * tau**gamma / end ** (gamma + 1)

    end = min(left[1], right[1])
    expected, _ = quad(lambda tau: density(tau, *left) * density(tau, *right), 0, end)
    assert overlap(Profile(*left), Profile(*right)) == pytest.approx(expected, rel=1e-8)


def test_a_profile_has_the_exponent_of_its_width():
    assert profile(0.1, 5.0) == Profile(gamma_of(0.1), 5.0)


@pytest.mark.parametrize("places", [(1.0,), (0.5, 1.0), (0.3, 0.6, 1.0)])
@pytest.mark.parametrize("sigma_rel", [0.02, 0.075, 0.2])
def test_a_weight_that_stands_still_is_its_own_average_however_few_were_stored(places, sigma_rel):
    known = [profile(width, place) for width in (0.05, 0.10) for place in places]
    assert coefficients(known, profile(sigma_rel, 1.0)).sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.075, 0.2])
def test_the_misfit_is_the_distance_of_the_densities_by_numerical_integration(sigma_rel):
    known = [profile(width, place) for width in (0.05, 0.10) for place in (0.25, 0.5, 0.75, 1.0)]
    wanted = profile(sigma_rel, 1.0)
    shares = coefficients(known, wanted)
    tau = (np.arange(200_000) + 0.5) / 200_000

    def density(one):
        inside = (one.gamma + 1) * (tau / one.images_seen) ** one.gamma / one.images_seen
        return np.where(tau < one.images_seen, inside, 0.0)

    fit = sum(share * density(one) for share, one in zip(shares, known, strict=True))
    expected = np.sqrt(np.mean((fit - density(wanted)) ** 2) / np.mean(density(wanted) ** 2))
    assert misfit(known, wanted, shares) == pytest.approx(expected, rel=1e-3)  # of the sum for the integral
