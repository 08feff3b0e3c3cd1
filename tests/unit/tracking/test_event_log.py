"""The event log: what is written, what is left after a crash, and what still counts after a resume."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from io import FileIO

import numpy as np
import pytest
import torch

from lediflow.errors import UserError
from lediflow.tracking import event_log
from lediflow.tracking.event_log import JsonlTracker, curve, read_events, standing_events
from lediflow.tracking.tracker import replay


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "events.jsonl"


def write(path, *events):
    """Records (event, images seen, loss) in one go, as one attempt of a run does."""
    tracker = JsonlTracker(path)
    for event, images_seen, loss in events:
        tracker.record(event, images_seen, loss=loss)
    tracker.close()


def points(found):
    return list(zip(found.images_seen.tolist(), found.values.tolist(), strict=True))


def test_each_event_is_one_line_of_json_that_is_on_disk_at_once(path):
    tracker = JsonlTracker(path)
    tracker.record("train", 64, loss=0.5, learning_rate=3e-4)
    tracker.record("checkpoint", 128, name="000128")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.pop("time")[:2] for line in lines] == ["20", "20"]
    assert lines == [
        {"event": "train", "images_seen": 64, "loss": 0.5, "learning_rate": 3e-4},
        {"event": "checkpoint", "images_seen": 128, "name": "000128"},
    ]
    tracker.close()


def test_tensors_and_numpy_numbers_are_written_as_numbers(path):
    write(path, ("train", 1, torch.tensor(0.25)), ("train", 2, np.float32(0.5)))
    assert points(curve(path, "train", "loss")) == [(1, 0.25), (2, 0.5)]


def test_a_nan_loss_is_logged_and_the_log_stays_valid_json(path):
    write(path, ("train", 1, float("nan")), ("train", 2, float("inf")))
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # called for NaN and Infinity, which strict JSON lacks
    assert np.isnan(curve(path, "train", "loss").values[0])
    assert curve(path, "train", "loss").values[1] == np.inf


def test_a_truncated_last_line_is_ignored_and_the_next_attempt_starts_a_new_one(path):
    write(path, ("train", 1, 0.5))
    with path.open("a") as log:
        log.write('{"time": "2026-01-01T00:00:00", "event": "tra')
    assert len(read_events(path)) == 1
    write(path, ("train", 2, 0.25))
    assert points(curve(path, "train", "loss")) == [(1, 0.5), (2, 0.25)]


def test_a_resume_discards_events_after_its_checkpoint(path):
    write(path, ("train", 100, 5.0), ("train", 200, 4.0), ("train", 250, 3.0))
    write(path, ("resume", 200, None), ("train", 300, 2.0))
    assert points(curve(path, "train", "loss")) == [(100, 5.0), (200, 4.0), (300, 2.0)]
    assert len(read_events(path)) == 5  # nothing is taken back from the file


def test_a_start_discards_an_attempt_that_left_no_checkpoint(path):
    write(path, ("start", 0, None), ("train", 100, 5.0), ("train", 200, 4.0))
    write(path, ("start", 0, None), ("train", 100, 6.0))
    assert points(curve(path, "train", "loss")) == [(100, 6.0)]
    assert [event["event"] for event in standing_events(path)] == ["start", "start", "train"]


def test_the_newest_of_two_values_at_one_place_counts(path):
    write(path, ("evaluate", 100, 5.0), ("evaluate", 300, 3.0), ("evaluate", 100, 4.0))
    assert points(curve(path, "evaluate", "loss")) == [(100, 4.0), (300, 3.0)]


def test_a_curve_holds_one_value_of_one_event(path):
    tracker = JsonlTracker(path)
    tracker.record("train", 1, loss=1.0, note="warm")
    tracker.record("validate", 1, loss=2.0)
    tracker.record("train", 2, kl=3.0)
    tracker.close()
    assert points(curve(path, "train", "loss")) == [(1, 1.0)]
    assert points(curve(path, "train", "note")) == []


def test_without_a_log_there_are_no_events(path):
    assert read_events(path) == []
    assert points(curve(path, "train", "loss")) == []


def test_replaying_a_log_writes_the_same_log(path, tmp_path):
    write(path, ("train", 100, 5.0), ("train", 250, 3.0))
    write(path, ("resume", 100, None), ("train", 200, float("nan")))
    copy = JsonlTracker(tmp_path / "copy.jsonl")
    assert replay(path, copy) == 3
    copy.close()
    timeless = [[{**event, "time": None} for event in standing_events(log)] for log in (path, copy.file.name)]
    assert timeless[0] == timeless[1]


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"events\.jsonl.*choose another run folder"):
        JsonlTracker(tmp_path / "file" / "events.jsonl")


def test_threads_share_the_log_and_every_line_is_whole(path):
    tracker = JsonlTracker(path)
    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            pool.submit(tracker.record, "train", number, note="x" * number)
    tracker.close()
    assert sorted(event["images_seen"] for event in read_events(path)) == list(range(200))


def test_a_hanging_write_blocks_no_other_thread_and_loses_no_event(path, monkeypatch):
    monkeypatch.setattr(event_log, "LOCK_SECONDS", 0.01)
    tracker = JsonlTracker(path)
    with tracker.lock:  # as a write that does not return would hold it
        tracker.record("stalled", 7)
    assert read_events(path) == []
    tracker.record("train", 8)
    assert [event["event"] for event in read_events(path)] == ["stalled", "train"]


def test_a_full_disk_loses_no_event_and_does_not_stop_the_run(path, caplog):
    tracker = JsonlTracker(path)
    tracker.record("train", 1)
    with FileIO("/dev/full", "a") as full, caplog.at_level(logging.WARNING):
        disk, tracker.file = tracker.file, full
        tracker.record("train", 2)
        tracker.record("train", 3)
    tracker.file = disk
    tracker.record("train", 4)
    tracker.close()
    assert [event["images_seen"] for event in read_events(path)] == [1, 2, 3, 4]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} cannot be written (No space left on device); events wait until it can"
    ]


def test_a_line_truncated_by_a_full_disk_is_written_again(path):
    class Cutting(FileIO):
        def write(self, line):
            return super().write(line[:10])

    tracker = JsonlTracker(path)
    disk, tracker.file = tracker.file, Cutting(path, "a")
    tracker.record("train", 1)
    tracker.file = disk
    tracker.record("train", 2)
    assert [event["images_seen"] for event in read_events(path)] == [1, 2]
