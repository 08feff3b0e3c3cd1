"""The clock counts images, so that intervals do not depend on the batch; learning rates in closed form."""

import math
from itertools import pairwise

import pytest

from lediflow.config.building.run import warn_of_short_run
from lediflow.training.clock import Clock, ScheduleConfig, highest_factor, learning_rate_factor
from lediflow.training.config import TrainingConfig


def moments(clock, every_images):
    """Images seen at the batches where something due every so many images happens."""
    due = []
    while not clock.is_finished:
        clock.advance()
        if clock.is_due(every_images):
            due.append(clock.images_seen)
    return due


@pytest.mark.parametrize("batch", [1, 10, 50, 100])
def test_an_interval_of_a_hundred_images_is_due_at_each_hundred(batch):
    assert moments(Clock(images=400, global_batch=batch), 100) == [100, 200, 300, 400]


def test_an_interval_that_is_no_multiple_of_the_batch_is_due_at_the_next_batch():
    assert moments(Clock(images=192, global_batch=64), 100) == [128]
    assert moments(Clock(images=210, global_batch=70), 100) == [140, 210]


def test_an_interval_below_the_batch_is_due_at_every_batch():
    assert moments(Clock(images=30, global_batch=10), 3) == [10, 20, 30]


def test_an_interval_of_zero_is_never_due():
    assert moments(Clock(images=30, global_batch=10), 0) == []


def test_a_run_ends_with_the_whole_batch_that_reaches_its_length():
    clock = Clock(images=25, global_batch=10)
    moments(clock, 1)
    assert clock.images_seen == 30


def test_a_continued_clock_is_due_where_an_undisturbed_one_is():
    assert moments(Clock(images=400, global_batch=10, images_seen=250), 100) == [300, 400]


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


@pytest.mark.parametrize(
    ("schedule", "images", "batch", "expected"),
    [
        ({"warmup_images": 1000}, 320, 16, 0.32),
        ({"warmup_images": 1000}, 310, 16, 0.32),  # the last batch is whole
        ({"warmup_images": 1000}, 1000, 8, 1.0),
        ({"warmup_images": 0, "decay_images": 400}, 100, 10, 0.5 * (1 - math.cos(math.pi * 90 / 400))),
        ({"warmup_images": 1000, "decay_images": IMAGES}, 1_000_000, 1, 1.0),  # not every step is looked at
    ],
)
def test_the_highest_rate_of_a_run_is_known_before_it_begins(schedule, images, batch, expected):
    assert highest_factor(ScheduleConfig(**schedule), images, batch) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("images", "said"), [(64, "no more than 0.32 of train.learning_rate=0.5"), (128, "")]
)
def test_a_run_that_is_too_short_for_its_schedule_is_warned_of(images, said, caplog):
    schedule = ScheduleConfig(warmup_images=200)
    warn_of_short_run(TrainingConfig(images=images, global_batch=64, learning_rate=0.5, schedule=schedule))
    assert said in caplog.text and bool(caplog.text) == bool(said)
