"""Averages of the weights: closed forms of their memory, on the image clock."""

import math

import pytest
import torch
from scipy.integrate import quad

from lediflow.engine.ema import Averages, EMAConfig, decays_for, gamma_of, role_of, roles, sigma_rel_of

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


def test_a_batch_weighs_as_much_as_its_images_whatever_its_size():
    once = half_life_decay(OLD, 10**6, batch=64)
    assert half_life_decay(OLD, 10**6, batch=16) ** 4 == pytest.approx(once)


def test_a_young_run_remembers_only_its_own_recent_share():
    config = EMAConfig(half_life_images=50_000, ramp=0.1)
    assert half_life_decay(config, images_seen=640, batch=64) == pytest.approx(0.5)  # half-life 64 images
    assert half_life_decay(config, images_seen=10**7, batch=50_000) == pytest.approx(
        0.5
    )  # the ramp has ended


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
def test_a_profile_is_as_wide_as_it_is_called(sigma_rel):
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


def test_a_rank_that_owns_nothing_averages_nothing():
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
