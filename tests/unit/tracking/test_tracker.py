"""The event log with its views as one tracker, and the tracker that a configuration makes."""

import logging

import pytest

from lediflow.tracking.event_log import read_events
from lediflow.tracking.tracker import CompositeTracker, SilentTracker, TrackingConfig, build_tracker


class Recorder:
    """Records the places of its events; raises at `fails_at`."""

    def __init__(self, fails_at: int | None = None):
        self.recorded: list[int] = []
        self.fails_at = fails_at
        self.is_closed = False

    def record(self, event, images_seen, **values):
        if images_seen == self.fails_at:
            raise ConnectionError("the network is gone")
        self.recorded.append(images_seen)

    def close(self):
        self.is_closed = True


def test_a_view_that_fails_is_named_and_dropped_while_training_continues(caplog):
    event_log, fragile, sturdy = Recorder(), Recorder(fails_at=2), Recorder()
    tracker = CompositeTracker(event_log, [fragile, sturdy])
    with caplog.at_level(logging.WARNING):
        for images_seen in (1, 2, 3):
            tracker.record("train", images_seen)
    tracker.close()
    assert event_log.recorded == sturdy.recorded == [1, 2, 3]
    assert fragile.recorded == [1]
    assert "the network is gone" in caplog.text
    assert event_log.is_closed and sturdy.is_closed


def test_an_event_log_that_cannot_be_written_stops_the_run():
    tracker = CompositeTracker(Recorder(fails_at=1), [Recorder()])
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
    tracker = build_tracker(TrackingConfig(), tmp_path, total_images=10, title="flow", progress_seconds=0.0)
    tracker.record("train", 5, loss=0.25)
    tracker.close()
    assert "flow: 5 of 10 images (50%), loss 0.25" in capsys.readouterr().err


def test_the_held_out_loss_is_shown_after_the_loss_and_lists_are_ignored(tmp_path, capsys):
    tracker = build_tracker(TrackingConfig(), tmp_path, total_images=10, title="flow", progress_seconds=0.0)
    tracker.record("train", 5, loss=0.25)
    tracker.record("validation", 5, loss=0.5, loss_by_time=[0.5, None])
    tracker.record("train", 6, loss=[0.125])
    tracker.close()
    assert capsys.readouterr().err.endswith(", loss 0.25, held-out loss 0.5\n")
