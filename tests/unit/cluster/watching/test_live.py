"""`status --watch`: one table that is drawn again in place, and a terminal that is left as it was."""

import io
import re

import pytest
from harness.job_folders import trained_by_hand
from harness.terminal import Terminal

from lediflow.cluster.watching.live import watch
from lediflow.cluster.watching.overview import Overview


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", "LINES": "8"}.items():
        monkeypatch.setenv(name, value)


def watched(runs, stream, between, looks=2):
    """Watch `runs` until the `looks`-th pause is interrupted; `between` is called in the first one."""
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == looks:
            raise KeyboardInterrupt
        between()

    with pytest.raises(KeyboardInterrupt):
        watch(lambda: Overview(runs), 5.0, stream, pause)
    return pauses


def test_the_table_is_drawn_over_the_one_before(slurm, runs):
    trained_by_hand(runs, "first")
    stream = Terminal()
    watched(runs, stream, lambda: trained_by_hand(runs, "second"))
    head, *rows, last, prompt = stream.screen
    assert head.startswith("name") and [row.split()[0] for row in rows] == ["first", "second"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d, every 5 s", last) and prompt == ""


def test_ctrl_c_leaves_the_terminal_as_it_was(slurm, runs):
    """No other screen, no hidden cursor: nothing that a kill could leave behind."""
    trained_by_hand(runs, "first")
    stream = Terminal()
    watched(runs, stream, lambda: None)
    assert all(re.fullmatch(r"[\d;]*m|\d*[AK]", command) for command in stream.commands)


def test_lines_fit_the_terminal_and_say_what_has_no_room(slurm, runs):
    for number in range(9):
        trained_by_hand(runs, f"run-with-quite-a-long-name-{number}")
    stream = Terminal()
    watched(runs, stream, lambda: None)
    assert max(map(len, stream.screen)) <= 60 and len(stream.screen) <= 8
    assert "4 more without --watch" in stream.screen[-2]


def test_a_pipe_gets_whole_names_and_every_table(slurm, runs):
    name = "a-name-" + "that-is-long-" * 12 + "end"
    trained_by_hand(runs, name)
    stream = io.StringIO()
    watched(runs, stream, lambda: None)
    assert stream.getvalue().count(name) == 2 and "\x1b" not in stream.getvalue()


def test_pauses_grow_with_the_time_that_a_look_takes(slurm, runs, monkeypatch):
    trained_by_hand(runs, "first")
    times = iter(range(0, 1000, 10))
    monkeypatch.setattr("lediflow.cluster.watching.live.time.monotonic", lambda: next(times))
    assert watched(runs, io.StringIO(), lambda: None) == [40.0, 40.0]
