"""A view in a thread: events in order, errors at the next event, and an end that does not wait for ever."""

import logging
from threading import Event, get_ident

import pytest
import torch

from lediflow.tracking.background import BackgroundView


class Slow:
    """A view that waits for `released` before each event; raises at `fails_at`."""

    def __init__(self, fails_at=None):
        self.released, self.failed = Event(), Event()
        self.fails_at, self.recorded, self.threads, self.is_closed = fails_at, [], set(), False

    def record(self, event, images_seen, **values):
        assert self.released.wait(10)
        if images_seen == self.fails_at:
            self.failed.set()
            raise OSError("the disk is full")
        self.recorded.append((event, images_seen, values))
        self.threads.add(get_ident())

    def close(self):
        self.is_closed = True


def test_events_are_shown_in_order_by_another_thread_with_the_values_they_had():
    slow = Slow()
    view, loss = BackgroundView(slow), torch.tensor(1.0)
    for place in range(3):
        view.record("train", place, loss=loss)
        loss += 1
    slow.released.set()
    view.close()
    assert slow.recorded == [("train", place, {"loss": 1.0 + place}) for place in range(3)]
    assert slow.is_closed and slow.threads != {get_ident()}


def test_an_error_is_raised_by_a_later_event_with_the_views_name():
    slow = Slow(fails_at=1)
    slow.released.set()
    view = BackgroundView(slow)
    view.record("train", 1)
    assert slow.failed.wait(10)
    view.thread.join()
    with pytest.raises(RuntimeError, match="Slow: the disk is full"):
        view.record("train", 2)
    with pytest.raises(RuntimeError, match="Slow: the disk is full"):
        view.close()


def test_the_end_of_a_run_does_not_wait_for_a_view_that_hangs(caplog):
    slow = Slow()
    view = BackgroundView(slow, close_seconds=0.05)
    view.record("train", 1)
    with caplog.at_level(logging.WARNING):
        view.close()
    assert "Slow has not shown the last events" in caplog.text
    slow.released.set()
