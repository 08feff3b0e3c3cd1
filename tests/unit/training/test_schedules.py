"""Learning rates in closed form."""

import math
from itertools import pairwise

import pytest

from lediflow.training.schedules import ScheduleConfig, learning_rate_factor

IMAGES = 10_000


@pytest.mark.parametrize(("images_seen", "factor"), [(0, 0.0), (250, 0.25), (1000, 1.0), (10_000, 1.0)])
def test_warm_up_is_linear_and_then_the_rate_is_constant(images_seen, factor):
    assert learning_rate_factor(ScheduleConfig(warmup_images=1000), images_seen, IMAGES) == pytest.approx(
        factor
    )


@pytest.mark.parametrize("images_seen", [6000, 7000, 8000, 9000, 10_000])
def test_the_last_stretch_is_half_a_cosine_down_to_its_end(images_seen):
    config = ScheduleConfig(warmup_images=0, decay_images=4000, final_factor=0.1)
    progress = (images_seen - 6000) / 4000
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2
    assert learning_rate_factor(config, images_seen, IMAGES) == pytest.approx(expected)


def test_without_warm_up_and_decay_the_rate_is_full_from_the_first_batch_to_the_last():
    config = ScheduleConfig(warmup_images=0)
    assert {learning_rate_factor(config, seen, IMAGES) for seen in (1, 5000, 10_000)} == {1.0}


def test_the_last_batch_may_overshoot_the_end():
    config = ScheduleConfig(warmup_images=0, decay_images=4000, final_factor=0.1)
    assert learning_rate_factor(config, IMAGES + 63, IMAGES) == pytest.approx(0.1)


def test_the_rate_rises_then_falls_and_never_jumps():
    config = ScheduleConfig(warmup_images=1000, decay_images=IMAGES)
    rates = [learning_rate_factor(config, seen, IMAGES) for seen in range(0, IMAGES + 1, 10)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(abs(b - a) for a, b in pairwise(rates)) <= 0.0101  # the warm-up's slope
