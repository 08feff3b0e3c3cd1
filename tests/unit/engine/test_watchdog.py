"""What each rank does in a run that hangs: it dumps its stacks, reports and ends.

Time is made up, and `tick` is called by hand; tests/distributed/test_watchdog_processes.py has real processes.
"""

import socket

import pytest

from lediflow.engine.hang_detection import (
    Limits,
    RankState,
    clear_earlier,
)
from lediflow.engine.ranks import Ranks
from lediflow.engine.watchdog import STALLED, Watchdog, ending

LIMITS = Limits(
    starting_seconds=1000, data_seconds=100, step_seconds=100, saving_seconds=500, silent_seconds=60,
    grace_seconds=30, end_after_seconds=200,
)  # fmt: skip
HERE = socket.gethostname()


class Run:
    """Watchdogs of several ranks over one folder and one made-up clock, without threads."""

    def __init__(self, folder, size=3, session="a"):
        self.folder, self.now = folder, 0.0
        self.reports, self.left = [], {}
        (folder / "heartbeats").mkdir(exist_ok=True)
        self.dogs = [
            Watchdog(
                folder, Ranks(rank=rank, world_size=size), LIMITS, self.reporter(rank), session=session,
                clock=lambda: self.now, leave=lambda status, rank=rank: self.left.setdefault(rank, status),
            )
            for rank in range(size)
        ]  # fmt: skip

    def reporter(self, rank):
        return lambda event, **values: self.reports.append((rank, event, values))

    def pass_time(self, seconds, silent=()):
        """Ticks every 5 s, as the threads would."""
        for _ in range(int(seconds / 5)):
            self.now += 5
            for rank, dog in enumerate(self.dogs):
                if rank not in silent:
                    dog.tick()

    def steps(self, count):
        for _ in range(count):
            for dog in self.dogs:
                dog.beat("data")
                dog.beat("step")
                dog.step_done()

    def stacks(self):
        return sorted(path.name[-len("rank-0.txt") :] for path in self.folder.glob("stacks/*"))


@pytest.fixture
def hanging(tmp_path):
    """Three ranks after two steps, of which the last gets no data."""
    run = Run(tmp_path)
    run.steps(2)
    for dog in run.dogs:
        dog.beat("data")
    for dog in run.dogs[:2]:
        dog.beat("step")
    return run


def test_every_rank_dumps_its_stacks_once_and_the_first_reports_once(hanging, caplog):
    hanging.pass_time(95)
    assert hanging.stacks() == []
    hanging.pass_time(90)
    assert hanging.stacks() == ["rank-0.txt", "rank-1.txt", "rank-2.txt"]
    ((rank, event, values),) = hanging.reports
    assert (rank, event) == (0, "stall")
    assert [(one["rank"], one["phase"], one["steps"], one["host"]) for one in values["ranks"]] == [
        (2, "data", 2, HERE)
    ]
    assert [record.message for record in caplog.records if "rank 2" in record.message] == [
        f"{values['sentence']}. Stacks of all ranks that still answer: {hanging.folder / 'stacks'}"
    ]


def test_stacks_hold_the_sentence_and_the_functions_that_run(hanging):
    hanging.pass_time(110)
    text = next(hanging.folder.glob("stacks/*-rank-1.txt")).read_text()
    assert "rank 2" in text
    assert "test_stacks_hold_the_sentence_and_the_functions_that_run" in text


def test_hanging_ranks_exit_with_their_status(hanging):
    hanging.pass_time(105 + 195)
    assert hanging.left == {}
    hanging.pass_time(15)
    assert hanging.left == {0: STALLED, 1: STALLED, 2: STALLED}


def test_a_run_that_progresses_again_is_not_ended_and_a_later_stall_is_reported_again(hanging):
    hanging.pass_time(120)
    hanging.steps(1)
    hanging.pass_time(90)
    hanging.steps(1)
    hanging.pass_time(90)
    assert hanging.left == {}
    assert len(hanging.reports) == 1
    hanging.dogs[0].beat("data")
    hanging.dogs[2].beat("data")
    hanging.pass_time(120)
    assert [[one["rank"] for one in values["ranks"]] for _, _, values in hanging.reports] == [[2], [1]]


def test_a_silent_rank_is_reported_before_the_limits_of_the_others_are_reached(tmp_path):
    run = Run(tmp_path)
    run.steps(1)
    run.pass_time(10)
    run.pass_time(70, silent=[1])
    ((_, event, values),) = run.reports
    assert event == "rank_silent"
    assert [one["rank"] for one in values["ranks"]] == [1]
    assert run.stacks() == ["rank-0.txt", "rank-2.txt"]


def test_a_failed_rank_is_reported_at_once_and_the_others_exit_after_a_grace_time(tmp_path):
    run = Run(tmp_path)
    run.steps(1)
    run.pass_time(5)
    run.dogs[1]._write(*ending(RuntimeError("no such batch")))
    run.pass_time(5, silent=[1])
    ((_, event, values),) = run.reports
    assert event == "rank_failed"
    assert values["sentence"] == f"rank 1 on {HERE} failed: RuntimeError: no such batch"
    run.steps(1)  # one more step does not help: the next collective hangs
    run.pass_time(40, silent=[1])
    assert run.left == {0: 1, 2: 1}


def test_a_stop_with_a_saved_state_is_not_a_failure():
    assert [ending(SystemExit(code))[0] for code in (None, 0, 75, 79, 80)] == [RankState.DONE] * 5
    assert ending(None)[0] is RankState.DONE
    assert ending(SystemExit(2))[0] is RankState.FAILED
    assert ending(KeyboardInterrupt())[0] is RankState.FAILED


def test_files_of_an_earlier_attempt_are_ignored_and_removed(tmp_path):
    earlier = Run(tmp_path)
    earlier.steps(1)
    earlier.pass_time(120)
    assert earlier.reports
    again = Run(tmp_path, size=2, session="b")
    again.pass_time(900)
    assert again.reports == []
    clear_earlier(tmp_path / "heartbeats", "b")
    assert sorted(path.name for path in (tmp_path / "heartbeats").iterdir()) == ["0.json", "1.json"]


def test_a_rank_that_never_starts_is_named(tmp_path):
    run = Run(tmp_path)
    run.pass_time(1010, silent=[2])
    ((_, event, values),) = run.reports
    assert event == "rank_silent"
    assert "rank 2 on an unknown host" in values["sentence"]
