"""The TensorBoard view, read back by TensorBoard: points, pictures and titles, after crashes too."""

import io
import json
import logging
import math
import subprocess
import sys
import time
from threading import Event

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from lediflow.errors import UserError
from lediflow.tracking import tensorboard
from lediflow.tracking.event_log import JsonlTracker
from lediflow.tracking.tables import write_csv
from lediflow.tracking.tensorboard import TensorboardTracker
from lediflow.tracking.tracker import CompositeTracker, TrackingConfig, build_tracker


def begun(folder):
    """Event log and view of a start of a run, as training has them."""
    return CompositeTracker(JsonlTracker(folder / "events.jsonl"), [TensorboardTracker(folder)])


def loaded(folder):
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    return found.Reload()


def points(found, tag):
    return [(event.step, event.tensor_proto.float_val[0]) for event in found.Tensors(tag)]


def event_files(folder):
    """Names of the event files that are not empty."""
    return sorted(path.name for path in (folder / "tensorboard").iterdir() if path.stat().st_size)


def test_numbers_and_titles_are_those_of_the_events(tmp_path):
    tracker = begun(tmp_path)
    tracker.record("start", 0, ranks=2)
    tracker.record("train", 8, loss=0.5, images_per_second=4.0, loss_by_time=[1.0, None], note="x")
    tracker.record("train", 16, loss=float("nan"), images_per_second=float("inf"))
    tracker.close()
    found = loaded(tmp_path)
    assert points(found, "start/ranks") == [(0, 2.0)]
    assert points(found, "train/loss_by_time/0") == [(8, 1.0)]
    (first, value), (second, other) = points(found, "train/loss")
    assert (first, value, second) == (8, 0.5, 16) and math.isnan(other)
    assert points(found, "train/images_per_second")[1] == (16, math.inf)
    assert found.SummaryMetadata("train/images_per_second").summary_description == "throughput (images/s)"


def test_a_run_that_crashed_and_was_continued_twice_has_every_point_once(tmp_path):
    """Killed at 150, continued at 100, twice; the view is never closed."""
    for first in (1, 101, 101):
        tracker = begun(tmp_path)
        tracker.record(*(("start", 0) if first == 1 else ("resume", 100)), ranks=1)
        for place in range(first, 151):
            tracker.record("train", place, loss=float(place + first))
    found = points(loaded(tmp_path), "train/loss")
    assert [place for place, _ in found] == list(range(1, 151))
    assert found[99:101] == [(100, 101.0), (101, 202.0)]
    assert len(event_files(tmp_path)) == 1 and len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_return_to_a_checkpoint_within_a_start_leaves_out_what_is_discarded(tmp_path):
    tracker = begun(tmp_path)
    tracker.record("start", 0)
    for place in (8, 16, 24):
        tracker.record("train", place, loss=1.0)
    tracker.record("resume", 8, ranks=1)
    tracker.record("train", 16, loss=2.0)
    assert points(loaded(tmp_path), "train/loss") == [(8, 1.0), (16, 2.0)]
    assert points(loaded(tmp_path), "resume/ranks") == [(8, 1.0)]


def test_a_second_return_to_the_same_checkpoint_counts_too(tmp_path):
    tracker = begun(tmp_path)
    tracker.record("start", 0)
    tracker.record("train", 8, loss=1.0)
    for loss in (2.0, 3.0, 4.0):
        tracker.record("train", 16, loss=loss)
        tracker.record("resume", 8, ranks=1)
    tracker.record("train", 24, loss=5.0)
    assert points(loaded(tmp_path), "train/loss") == [(8, 1.0), (24, 5.0)]


def test_events_that_are_told_late_are_there_once(tmp_path):
    """As from a queue: the log is ahead of the view, through a return to a checkpoint."""
    log, view = JsonlTracker(tmp_path / "events.jsonl"), TensorboardTracker(tmp_path)
    told = [("start", 0, 0.0), ("train", 8, 1.0), ("train", 16, 1.0), ("train", 24, 1.0)]
    told += [("resume", 8, 0.0), ("train", 16, 2.0)]
    for event, place, loss in told:
        log.record(event, place, loss=loss)
    for event, place, loss in told:
        view.record(event, place, loss=loss)
    assert points(loaded(tmp_path), "train/loss") == [(8, 1.0), (16, 2.0)]


def test_a_run_that_begins_again_without_a_checkpoint_shows_its_last_start_only(tmp_path):
    for loss in (1.0, 2.0):
        tracker = begun(tmp_path)
        tracker.record("start", 0)
        for place in (8, 16) if loss == 1.0 else (8,):
            tracker.record("train", place, loss=loss)
    assert points(loaded(tmp_path), "train/loss") == [(8, 2.0)]


def test_an_open_tensorboard_drops_what_is_discarded(tmp_path):
    tracker = begun(tmp_path)
    for place in (8, 16, 24):
        tracker.record("train", place, loss=1.0)
    reader = loaded(tmp_path)
    tracker = begun(tmp_path)
    tracker.record("resume", 8)
    tracker.record("train", 16, loss=2.0)
    assert points(reader.Reload(), "train/loss") == [(8, 1.0), (16, 2.0)]


def test_evaluations_of_another_process_appear_at_their_place_at_the_next_start(tmp_path):
    tracker = begun(tmp_path)
    for place in (8, 16, 24):
        tracker.record("train", place, loss=1.0)
    log = JsonlTracker(tmp_path / "events.jsonl")
    log.record("evaluation", 16, midpoint_2={"mmd": 3.0})
    begun(tmp_path).record("resume", 24)
    found = loaded(tmp_path)
    assert points(found, "evaluation/midpoint_2/mmd") == [(16, 3.0)]
    assert len(points(found, "train/loss")) == 3


def test_a_finished_run_is_shown_with_late_evaluations(tmp_path):
    log = JsonlTracker(tmp_path / "events.jsonl")
    log.record("train", 32, loss=1.0)
    log.record("evaluation", 16, midpoint_2={"mmd": 3.0})
    for _ in range(2):
        TensorboardTracker(tmp_path).show_log()
    assert points(loaded(tmp_path), "evaluation/midpoint_2/mmd") == [(16, 3.0)]


def test_times_never_fall_when_the_clock_is_set_back(tmp_path, monkeypatch):
    def lines(*times):
        events = [
            {"time": at, "event": "train", "images_seen": 8 * place, "loss": 1.0}
            for place, at in enumerate(times)
        ]
        return "".join(json.dumps(event) + "\n" for event in events)

    hours = ("2026-03-01T09:00:00+00:00", "2026-03-01T08:00:00+00:00", "2026-03-01T08:30:00+00:00")
    (tmp_path / "events.jsonl").write_text(lines(*hours))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    begun(tmp_path).record("train", 80, loss=1.0)
    walls = [event.wall_time for event in loaded(tmp_path).Tensors("train/loss")]
    assert len(walls) == 4 and walls == sorted(walls)


def test_a_newer_file_has_a_later_name_when_the_clock_is_set_back(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2e9)
    begun(tmp_path).record("start", 0)
    (before,) = event_files(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    begun(tmp_path).record("resume", 0)
    (after,) = event_files(tmp_path)
    assert after > before


def test_pictures_are_the_bytes_of_their_files(tmp_path, caplog):
    (tmp_path / "pictures").mkdir()
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "pictures" / "a.png")
    tracker = begun(tmp_path)
    files = {"samples": {"file": "pictures/a.png", "caption": "8"}, "heldout": {"file": "pictures/gone.png"}}
    with caplog.at_level(logging.WARNING):
        tracker.record("pictures", 8, pictures=files | {"secret": {"file": "../../etc/passwd"}}, seconds=0.5)
    found = loaded(tmp_path)
    assert sorted(found.Tags()["tensors"]) == ["pictures/samples", "pictures/seconds"]
    (shown,) = found.Tensors("pictures/samples")
    width, height, encoded = shown.tensor_proto.string_val  # as TensorBoard keeps an image
    assert (shown.step, width, height) == (8, b"6", b"4")
    assert encoded == (tmp_path / "pictures" / "a.png").read_bytes()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), pixels)
    assert points(found, "pictures/seconds") == [(8, 0.5)]
    assert "shows no pictures/heldout" in caplog.text


def test_a_disk_that_is_full_drops_the_view_and_not_the_run(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    tracker = begun(tmp_path)
    with caplog.at_level(logging.WARNING):
        for place in (8, 16):
            tracker.record("train", place, loss=1.0)
    tracker.close()
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2
    assert caplog.text.count("TensorboardTracker failed") == 1


def test_training_does_not_wait_for_a_long_log(tmp_path, monkeypatch):
    """The view of a configuration is in a thread of its own."""
    released = Event()
    monkeypatch.setattr(TensorboardTracker, "rebuild", lambda view: released.wait(10))
    tracker = build_tracker(TrackingConfig(progress=False, tensorboard=True), tmp_path, total_images=1)
    tracker.record("start", 0)
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 1
    released.set()
    tracker.close()


def test_it_is_a_view_only_if_configured_and_writes_nothing_before_the_first_event(tmp_path):
    for is_on in (False, True):
        config = TrackingConfig(progress=False, tensorboard=is_on)
        tracker = build_tracker(config, tmp_path / str(is_on), total_images=1)
        assert not (tmp_path / str(is_on) / "tensorboard").exists()
        tracker.record("start", 0, ranks=1)
        tracker.close()
        assert (tmp_path / str(is_on) / "tensorboard").exists() is is_on


def test_texts_of_events_which_may_hold_a_token_are_not_shown(tmp_path):
    tracker = begun(tmp_path)
    tracker.record("start", 0, command="train --token=s3cr3t", ranks=1)
    tracker.record("options", 8, changed=["data.token: s3cr3t, now s3cr3t"])
    tracker.record("pictures", 8, pictures={"samples": {"file": "none.png", "caption": "s3cr3t"}})
    tracker.close()
    (shown,) = (tmp_path / "tensorboard").iterdir()
    assert b"start/ranks" in shown.read_bytes() and b"s3cr3t" not in shown.read_bytes()
    assert "s3cr3t" not in write_csv([tmp_path], tmp_path / "out.csv").read_text()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"pip install 'lediflow\[tensorboard\]'"):
        TensorboardTracker(tmp_path)


@pytest.mark.processes
def test_neither_torch_nor_tensorboard_is_imported_before_it_is_used():
    code = f"import sys, {tensorboard.__name__}; print({{'tensorboard', 'torch'}} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
