"""A rank that hangs, is stopped, killed or fails is named, and the others end (harness/hanging_ranks.py)."""

import json
import sys

import pytest
from harness.processes import ROOT, Started

from lediflow.engine.watchdog import STALLED

KILLED = -9


class Runs:
    def __init__(self, folder):
        self.folder = folder
        script = ROOT / "tests" / "harness" / "hanging_ranks.py"
        finished = Started([sys.executable, str(script), str(folder)]).wait()
        assert finished.status == 0, finished.output
        self.statuses = json.loads((folder / "statuses.json").read_text())

    def log(self, way):
        return "".join((self.folder / way / f"{rank}.log").read_text() for rank in (0, 1))

    def reports(self, way):
        return [json.loads(line) for line in (self.folder / way / "reports.jsonl").read_text().splitlines()]

    def stacks(self, way):
        """Text by rank."""
        return {path.name[-5]: path.read_text() for path in (self.folder / way / "stacks").iterdir()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("hanging"))


@pytest.mark.parametrize(
    ("way", "event", "words"),
    [
        ("data", "stall", "stays longer than the 1 s of its phase; the other ranks wait"),
        ("stopped", "rank_silent", "stopped: its process waits for SIGCONT"),
        ("killed", "rank_silent", "gone: its process was killed"),
        ("held", "rank_silent", "its interpreter is held"),
        ("failed", "rank_failed", "failed: ZeroDivisionError: division by zero"),
    ],
)
def test_the_log_and_one_event_name_the_rank_that_the_other_waits_for(runs, way, event, words):
    (report,) = runs.reports(way)
    assert (report["event"], report["by"]) == (event, 0)
    assert [(one["rank"], one["phase"], one["steps"]) for one in report["ranks"]] == [(1, "data", 3)]
    assert report["sentence"].startswith("rank 1 on ")
    assert words in report["sentence"]
    assert runs.log(way).count(f"ERROR:lediflow.engine.watchdog:{report['sentence']}") == 1


def test_every_rank_that_responds_writes_its_stack(runs):
    stacks = runs.stacks("data")
    assert "the_collective_that_waits" in stacks["0"]
    assert "the_loader_that_hangs" in stacks["1"]
    for way in ("stopped", "killed", "held", "failed"):
        assert list(runs.stacks(way)) == ["0"]
        assert "the_collective_that_waits" in runs.stacks(way)["0"]


def test_a_rank_whose_gil_is_held_still_writes_its_stack(runs):
    assert "the_extension_that_holds_the_lock" in (runs.folder / "held/heartbeats/1-held.txt").read_text()


def test_ranks_that_wait_too_long_exit(runs):
    assert runs.statuses == {
        "data": {"0": STALLED, "1": STALLED},
        "stopped": {"0": STALLED, "1": KILLED},
        "killed": {"0": STALLED, "1": KILLED},
        "held": {"0": STALLED, "1": KILLED},
        "failed": {"0": 1, "1": 3},
    }
