"""Several listeners as one, and the tracker a run is configured with."""

import logging

import pytest

from lediflow.tracking.event_log import read_events
from lediflow.tracking.tracker import CompositeTracker, SilentTracker, TrackingConfig, build_tracker


class Listener:
    """Remembers what it was told, and raises where it is asked to."""

    def __init__(self, fails_at: int | None = None):
        self.heard: list[int] = []
        self.fails_at = fails_at
        self.is_closed = False

    def record(self, event, images_seen, **values):
        if images_seen == self.fails_at:
            raise ConnectionError("the network is gone")
        self.heard.append(images_seen)

    def close(self):
        self.is_closed = True


def test_a_view_that_fails_is_named_and_left_out_while_the_run_goes_on(caplog):
    truth, fragile, sturdy = Listener(), Listener(fails_at=2), Listener()
    tracker = CompositeTracker(truth, [fragile, sturdy])
    with caplog.at_level(logging.WARNING):
        for images_seen in (1, 2, 3):
            tracker.record("train", images_seen)
    tracker.close()
    assert truth.heard == sturdy.heard == [1, 2, 3]
    assert fragile.heard == [1]
    assert "the network is gone" in caplog.text
    assert truth.is_closed and sturdy.is_closed


def test_a_truth_that_cannot_be_told_stops_the_run():
    tracker = CompositeTracker(Listener(fails_at=1), [Listener()])
    with pytest.raises(ConnectionError):
        tracker.record("train", 1)


def test_every_run_keeps_an_event_log(tmp_path):
    tracker = build_tracker(TrackingConfig(progress=False), tmp_path, total_images=10)
    tracker.record("train", 5, loss=1.0)
    tracker.close()
    assert [event["images_seen"] for event in read_events(tmp_path / "events.jsonl")] == [5]


def test_ranks_that_are_not_the_writer_touch_nothing(tmp_path):
    tracker = build_tracker(TrackingConfig(), tmp_path, total_images=10, is_writer=False)
    tracker.record("train", 5)
    tracker.close()
    assert isinstance(tracker, SilentTracker)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_a_view_of_the_events(tmp_path, capsys):
    tracker = build_tracker(TrackingConfig(progress_seconds=0.0), tmp_path, total_images=10, title="flow")
    tracker.record("train", 5, loss=0.25)
    tracker.close()
    assert "flow: 5 of 10 images (50%), loss 0.25" in capsys.readouterr().err


def test_the_held_out_loss_stands_beside_the_loss_and_lists_are_passed_over(tmp_path, capsys):
    tracker = build_tracker(TrackingConfig(progress_seconds=0.0), tmp_path, total_images=10, title="flow")
    tracker.record("train", 5, loss=0.25)
    tracker.record("validation", 5, loss=0.5, loss_by_time=[0.5, None])
    tracker.record("train", 6, loss=[0.125])
    tracker.close()
    assert capsys.readouterr().err.endswith(", loss 0.25, held-out loss 0.5\n")
