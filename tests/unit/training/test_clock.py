"""The clock counts images: intervals keep their meaning whatever the batch."""

import pytest

from lediflow.training.clock import Clock


def moments(clock, every_images):
    """Images seen at the batches where something due every so many images happens."""
    due = []
    while not clock.is_finished:
        clock.advance()
        if clock.is_due(every_images):
            due.append(clock.images_seen)
    return due


@pytest.mark.parametrize("batch", [1, 10, 50, 100])
def test_what_is_due_every_hundred_images_happens_at_each_hundred(batch):
    assert moments(Clock(images=400, global_batch=batch), 100) == [100, 200, 300, 400]


def test_a_batch_that_does_not_divide_the_interval_is_due_at_the_first_batch_past_it():
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
