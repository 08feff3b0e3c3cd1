"""One pass over the event log gives what its readers give, by the same rules."""

import numpy as np
from harness.run_logs import write_events

from lediflow.report.run_log import read_log
from lediflow.tracking.event_log import JsonlTracker, curve


def test_numbers_are_those_of_the_reader_of_single_curves(tmp_path):
    """Resumes discard, the newest of two values at a place counts, late values lie where they belong."""
    path = write_events(
        tmp_path / "events.jsonl",
        [
            (0, "start", 0, {}),
            (1, "train", 100, {"loss": 9.0}),
            (2, "train", 200, {"loss": "nan"}),
            (3, "train", 300, {"loss": 7.0, "note": "text", "is_fast": True}),
            (4, "validation", 150, {"loss": 6.5}),
            (5, "resume", 200, {"why": "start"}),
            (6, "train", 250, {"loss": 5.0}),
            (7, "train", 250, {"loss": 4.0}),
            (8, "validation", 120, {"loss": 3.0}),
            (9, "resume", 130, {"why": "start"}),
        ],
    )
    log = read_log(path)
    for event in ("train", "validation", "never"):
        expected, found = curve(path, event, "loss"), log.curve(event, "loss")
        np.testing.assert_array_equal(found.images_seen, expected.images_seen)
        np.testing.assert_array_equal(found.values, expected.values)
    assert set(log.numbers) == {"train/loss", "validation/loss"}


def test_numbers_inside_a_dict_have_names_of_their_own(tmp_path):
    path = write_events(tmp_path / "log", [(0, "evaluation", 5, {"midpoint_4": {"mmd": 0.5, "name": "MMD"}})])
    assert read_log(path).curve("evaluation", "midpoint_4/mmd").values.tolist() == [0.5]


def test_a_value_by_bin_is_a_row_for_each_event_with_nan_for_empty_bins(tmp_path):
    tracker = JsonlTracker(tmp_path / "events.jsonl")
    tracker.record("train", 200, loss_by_time=[1.0, None])
    tracker.record("train", 100, loss_by_time=[3.0, "nan"])
    tracker.record("validation", 100, loss_by_time=[9.0, 9.0])
    tracker.record("train", 200, loss_by_time=[2.0, 4.0])  # the newest counts
    tracker.record("train", 300, loss=1.0)
    found = read_log(tmp_path / "events.jsonl").binned_curve("train", "loss_by_time")
    assert found.images_seen.tolist() == [100, 200]
    np.testing.assert_array_equal(found.values, [[3.0, np.nan], [2.0, 4.0]])


def test_after_a_change_of_bins_only_rows_with_the_last_bins_are_kept(tmp_path):
    tracker = JsonlTracker(tmp_path / "events.jsonl")
    tracker.record("train", 1, loss_by_time=[1.0])
    tracker.record("train", 2, loss_by_time=[1.0, 2.0])
    log = read_log(tmp_path / "events.jsonl")
    assert log.binned_curve("train", "loss_by_time").values.tolist() == [[1.0, 2.0]]
    assert log.binned_curve("train", "loss_by_sigma").values.shape == (0, 0)


def test_without_a_log_there_is_nothing(tmp_path):
    log = read_log(tmp_path / "none")
    assert not log.numbers and not log.history.sessions
