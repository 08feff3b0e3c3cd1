"""Progress: lines in a file, a bar on a terminal. The clock is a fake."""

import io
import logging
import sys

import pytest
from harness.terminal import Terminal

from lediflow.tracking.progress import (
    LineProgress,
    ProgressTracker,
    make_progress,
    progress_callback,
)


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    """The kind and size of an ordinary terminal."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)


def sentences(updates, total=1000, every_seconds=10.0):
    """The lines written for updates of (seconds, done)."""
    clock, stream = Clock(), io.StringIO()
    progress = LineProgress("training", total, "images", stream, every_seconds, clock)
    for clock.now, done in updates:
        progress.update(done)
    progress.close()
    return stream.getvalue().splitlines()


def test_a_line_has_share_rate_and_time_left():
    assert sentences([(0, 0), (10, 200)])[1] == "training: 200 of 1,000 images (20%), 20 images/s, 40 s left"


def test_lines_are_at_least_the_interval_apart():
    assert len(sentences([(second, second) for second in range(31)])) == 4  # at 0, 10, 20 and 30 seconds


def test_the_last_line_is_always_written_and_has_the_duration():
    assert (
        sentences([(0, 0), (1, 1000)])[-1]
        == "training: 1,000 of 1,000 images (100%), 1,000 images/s, took 1 s"
    )


def test_updates_after_the_total_change_the_note_of_the_last_line():
    """The last step of a training makes several events: its loss, its pace, the held-out loss."""
    stream = io.StringIO()
    progress = make_progress("training", 4, stream=stream)
    tracker = ProgressTracker(progress)
    tracker.record("start", 0)
    tracker.record("train", 4, loss=0.5)
    tracker.record("timing", 4, step=0.1)
    tracker.record("validation", 4, loss=0.25)
    tracker.close()
    tracker.close()
    tracker.record("late", 4)
    lines = stream.getvalue().splitlines()
    assert [line.startswith("training: 4 of 4 images (100%)") for line in lines] == [False, True]
    assert lines[-1].endswith("loss 0.5, held-out loss 0.25")


def test_a_finished_bar_is_drawn_once_and_stays():
    stream = Terminal()
    progress = make_progress("training", 4, stream=stream)
    for done in (0, 4, 4, 4):
        progress.update(done, "loss 0.5")
    progress.close()
    progress.close()
    progress.update(4)
    bar, numbers, end = stream.screen
    assert bar.startswith("training ") and bar.endswith("100%")
    assert numbers.startswith("  4 of 4 images, ") and numbers.endswith("took 0 s, loss 0.5")
    assert end == ""


def test_a_log_line_is_written_above_the_bar(monkeypatch):
    """The bar is cleared, the line written, and the bar drawn again; no copy of the bar is left above the line."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(stream)])
    progress = make_progress("training", 4, stream=stream)
    progress.update(4)
    line = "exported RUN/export: " + "a line longer than the terminal is wide is not broken " * 3 + "[bold]"
    logging.getLogger("lediflow").error(line)
    progress.close()
    logging.getLogger("lediflow").error("later")
    first, bar, numbers, later, _ = stream.screen
    assert (first, later) == (line, "later")
    assert bar.startswith("training ") and numbers.startswith("  4 of 4")


def test_the_cursor_stays_visible_so_that_a_kill_leaves_a_terminal_that_works():
    stream = Terminal()
    progress = make_progress("training", 4, stream=stream)
    progress.update(1)
    assert not stream.commands & {"?25l", "?1049h"}
    progress.close()


def test_a_terminal_without_control_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_progress("training", 4, stream=Terminal()), LineProgress)


def test_work_that_reports_its_end_twice_is_shown_finished_once(capsys):
    report = progress_callback("packing", unit="files")
    for done in (0, 4, 4):
        report(done, 4)
    assert capsys.readouterr().err.count("(100%)") == 1


def test_a_resumed_run_counts_only_its_own_work():
    resumed = sentences([(0, 900), (10, 950)])
    assert "5 images/s" in resumed[1]
    assert "10 s left" in resumed[1]


def test_slow_rates_are_printed_with_decimals():
    assert "0.25 images/s" in sentences([(0, 0), (20, 5)])[1]


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    progress = make_progress("encoding", 10, stream=stream)
    progress.update(10, "loss 0.5")
    progress.close()
    assert stream.screen[0].startswith("encoding ") and stream.screen[0].endswith("100%")


def test_a_callback_gets_its_total_when_work_starts(capsys):
    report = progress_callback("packing", unit="files")
    report(0, 4)
    report(4, 4)
    assert capsys.readouterr().err.splitlines()[-1].startswith("packing: 4 of 4 files (100%)")
