"""Averages of the weights: closed forms of their memory on the image clock; and averages made afterwards.

Those are compared with averages that were kept during the whole run.
"""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from lediflow.engine.ema import (
    Averages,
    EMAConfig,
    Profile,
    coefficients,
    decays_for,
    gamma_of,
    misfit,
    overlap,
    profile,
    role_of,
    roles,
    sigma_rel_of,
)

OLD = EMAConfig(half_life_images=1000, ramp=1e9)  # a run so old that the ramp does not bind


def half_life_decay(config, images_seen, batch):
    return decays_for(config, images_seen, batch)["ema"]


def test_after_one_half_life_of_images_half_of_the_old_average_is_left():
    weight = torch.zeros(3)
    averages = Averages([weight], ["ema"])
    weight.fill_(1.0)
    for _ in range(1000 // 8):
        averages.update(decays_for(OLD, images_seen=10**6, batch=8))
    torch.testing.assert_close(averages.tensors["ema"][0], torch.full((3,), 0.5))


def test_a_batch_is_weighted_by_its_number_of_images():
    once = half_life_decay(OLD, 10**6, batch=64)
    assert half_life_decay(OLD, 10**6, batch=16) ** 4 == pytest.approx(once)


def test_a_young_run_remembers_only_its_own_recent_share():
    config = EMAConfig(half_life_images=50_000, ramp=0.1)
    assert half_life_decay(config, images_seen=640, batch=64) == pytest.approx(0.5)  # half-life 64 images
    # the ramp has ended
    assert half_life_decay(config, images_seen=10**7, batch=50_000) == pytest.approx(0.5)


def test_power_function_averages_forget_the_start_with_the_first_batch():
    decays = decays_for(EMAConfig(sigma_rels=[0.05, 0.10]), images_seen=64, batch=64)
    assert decays["ema_0.050"] == decays["ema_0.100"] == 0.0


def test_the_half_life_average_is_the_loop_written_by_hand():
    """From the first step through the ramp and beyond its end, with batches of 32 images."""
    config, random = (
        EMAConfig(half_life_images=500, ramp=0.25, sigma_rels=[]),
        torch.Generator().manual_seed(0),
    )
    history = torch.randn(100, 4, generator=random, dtype=torch.float64)
    weight = history[0].float()
    averages, expected = Averages([weight], roles(config)), weight.double()
    for step, values in enumerate(history, start=1):
        weight.copy_(values)
        averages.update(decays_for(config, images_seen=32 * step, batch=32))
        share = 2.0 ** (-32 / min(500, 0.25 * 32 * step))
        expected = share * expected + (1 - share) * weight.double()
    torch.testing.assert_close(averages.tensors["ema"][0].double(), expected, rtol=0, atol=1e-6)  # float32


@pytest.mark.parametrize("batch", [1, 64, 10_000])
@pytest.mark.parametrize("config", [EMAConfig(), EMAConfig(ramp=0.0), EMAConfig(sigma_rels=[0.001, 0.279])])
def test_decays_lie_between_zero_and_one_at_every_age(config, batch):
    for steps in (1, 2, 3, 10, 1000, 10**5):
        decays = decays_for(config, images_seen=steps * batch, batch=batch)
        assert decays.keys() == set(roles(config))
        assert all(0 <= decay < 1 for decay in decays.values()), decays


@pytest.mark.parametrize("gamma", [0.5, 1.0, 6.94, 16.97, 50.0, 1000.0])
def test_width_and_exponent_are_two_names_of_one_profile(gamma):
    assert gamma_of(sigma_rel_of(gamma)) == pytest.approx(gamma, rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.05, 0.10, 0.20])
def test_the_width_of_a_profile_is_its_sigma_rel(sigma_rel):
    gamma = gamma_of(sigma_rel)

    def moment(power):
        return quad(lambda tau: (gamma + 1) * tau ** (gamma + power), 0, 1)[0]

    assert math.sqrt(moment(2) - moment(1) ** 2) == pytest.approx(sigma_rel, rel=1e-6)
    assert sigma_rel_of(gamma) == pytest.approx(sigma_rel, rel=1e-12)


@pytest.mark.parametrize(
    ("sigma_rel", "gamma"), [(0.05, 16.97), (0.10, 6.94)]
)  # as the paper's section 3.1 rounds them
def test_widths_have_the_exponents_of_the_paper(sigma_rel, gamma):
    assert gamma_of(sigma_rel) == pytest.approx(gamma, abs=0.005)


def test_the_memory_of_a_power_function_average_is_the_power_function():
    """A weight that equals the time has the mean of the density, (gamma + 1) / (gamma + 2) of the run's length."""
    images, batch, sigma_rel = 100_000, 50, 0.10
    config, weight = EMAConfig(sigma_rels=[sigma_rel]), torch.zeros(1)
    averages = Averages([weight], roles(config))
    for images_seen in range(batch, images + batch, batch):
        weight.fill_(images_seen / images)
        averages.update(decays_for(config, images_seen, batch))
    gamma = gamma_of(sigma_rel)
    found = float(averages.tensors[role_of(sigma_rel)][0])
    assert found == pytest.approx((gamma + 1) / (gamma + 2), abs=5e-4)  # 2000 steps stand for an integral


def test_the_average_is_the_weighted_sum_of_all_past_weights():
    random = torch.Generator().manual_seed(0)
    history = torch.randn(6, 4, generator=random)
    weight = history[0].clone()
    averages = Averages([weight], ["ema"])
    for values in history[1:]:
        weight.copy_(values)
        averages.update({"ema": 0.9})
    shares = torch.tensor([0.9**5, *(0.1 * 0.9**age for age in (4, 3, 2, 1, 0))])
    torch.testing.assert_close(averages.tensors["ema"][0], shares @ history)


def test_averages_of_several_kinds_do_not_touch_each_other():
    weight = torch.zeros(1)
    averages = Averages([weight], ["ema", "ema_0.050"])
    weight.fill_(1.0)
    averages.update({"ema": 0.75, "ema_0.050": 0.5})
    assert averages.tensors["ema"][0].tolist() == [0.25]
    assert averages.tensors["ema_0.050"][0].tolist() == [0.5]


def test_bfloat16_weights_are_averaged_in_float32():
    weight = torch.zeros(1, dtype=torch.bfloat16)
    averages = Averages([weight], ["ema"])
    weight.fill_(1.0)
    for _ in range(1000):
        averages.update({"ema": 0.9999})  # each step is below bfloat16's resolution near 0.1
    expected = torch.tensor([1 - 0.9999**1000])
    torch.testing.assert_close(averages.tensors["ema"][0], expected, rtol=1e-4, atol=0)


def test_a_rank_with_an_empty_shard_has_no_averages():
    Averages([], ["ema"]).update({"ema": 0.5})


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ([0.3], r"sigma_rels\[0\]=0\.3 must be above 0 and below 0\.28"),
        ([0.0], r"sigma_rels\[0\]=0\.0 must be above 0"),
        ([0.0525], "three decimals"),
        ([0.1, 0.1], "more than once"),
    ],
)
def test_widths_that_cannot_be_kept_apart_are_refused(widths, words):
    with pytest.raises(ValueError, match=words):
        EMAConfig(sigma_rels=widths)


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
def test_a_stored_width_is_reproduced_exactly(stored, sigma_rel):
    assert made_afterwards(stored, sigma_rel) == pytest.approx(kept(sigma_rel)[IMAGES], rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.04, 0.07, 0.09, 0.12, 0.15])
def test_other_widths_equal_averages_tracked_during_the_run(stored, sigma_rel):
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
def test_the_average_of_a_constant_weight_is_the_weight_for_any_number_stored(places, sigma_rel):
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
