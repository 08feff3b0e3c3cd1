"""Two starts of one run on one folder, as where SLURM takes a machine for lost that works on: real processes."""

import json
import os
import signal

import pytest
from harness.curves import assert_same_tensors, events, weights
from harness.patience import SMALLEST_SHARE, share_of_core, wait_until
from harness.processes import SECONDS, slurm_places

from lediflow.engine.lease import read_lease

SOON, NEVER = 0.3, 1000.0  # seconds between renewals, of an idle machine: longer than a step, by far
LOST, REFUSED, STOPPED, KILLED = 82, 2, 75, -9
ENDLESS = 1_000_000  # images; the schedule has no decay, so that the length changes no step
FEW = 64  # images
OFTEN = "train.checkpoint.every_images=16"
TWO_RANKS = ("engine=deepspeed", "engine.zero=2")


class Runs:
    """Starts of one run; none outlives the test."""

    def __init__(self, forks, root):
        self.forks, self.root, self.folder, self.started = forks, root, root / "run", []
        self.soon = SOON / max(SMALLEST_SHARE, share_of_core(0.2))

    def start(self, *options, images=ENDLESS, pace=None, job=None, restart=0, place=None, run=None):
        slurm = {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restart)} if job else {}
        command = (
            "experiment=smoke", "stage=auxiliary", "engine.device=cpu", f"data.path={self.root}/shards", OFTEN,
            f"train.images={images}", f"run={run or self.folder}", *options,
        )  # fmt: skip
        process = self.forks.start(
            "harness.leased_rank", pace or self.soon, *command, env=(place or {}) | slurm
        )
        self.started.append(process)
        return process

    def start_two_ranks(self, **options):
        return [self.start(*TWO_RANKS, place=place, **options) for place in slurm_places(2)]

    def until(self, condition, *processes):
        """Fails if one of these processes ends before."""

        def is_met():
            ended = [process for process in processes if process.poll() is not None]
            met = condition()
            assert met or not ended, ended[0].output()
            return met

        assert wait_until(is_met, SECONDS), [process.output() for process in processes]

    def until_saved(self, *processes):
        self.until(lambda: events(self.folder, "checkpoint"), *processes)

    def end(self, process):
        self.until(lambda: process.poll() is not None)
        return process.finished()

    def images_saved(self):
        return events(self.folder, "checkpoint")[-1]["images_seen"]

    def contents(self):
        """All that a run is; without where its ranks are and whose it is."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        ours = [path for path in files if "heartbeats" not in path.parts and "lease.json" not in path.name]
        return {path.relative_to(self.folder): path.read_bytes() for path in ours}

    def close(self):
        for process in self.started:
            process.kill()


@pytest.fixture
def runs(forks, tmp_path):
    found = Runs(forks, tmp_path)
    yield found
    found.close()


def test_a_suspended_session_exits_without_writing_after_slurm_started_another(runs):
    older = runs.start(job="77")
    runs.until_saved(older)
    os.kill(older.pid, signal.SIGSTOP)
    images = runs.images_saved() + FEW
    newer = runs.end(runs.start(job="77", restart=1, images=images))
    assert newer.status == 0, newer.output
    before = runs.contents()

    os.kill(older.pid, signal.SIGCONT)
    finished = runs.end(older)
    assert finished.status == LOST, finished.output
    assert "nothing was saved" in finished.output or "ends without saving" in finished.output
    assert runs.contents() == before

    alone = runs.end(runs.start(images=images, run=runs.root / "alone"))
    assert alone.status == 0, alone.output
    assert_same_tensors(weights(runs.folder), weights(runs.root / "alone"))


def test_all_ranks_of_a_replaced_session_exit_together_before_the_other_begins(runs):
    older = runs.start_two_ranks(job="77")
    runs.until_saved(*older)
    newer = runs.start(job="77", restart=1)
    finished = [runs.end(rank) for rank in older]
    assert [rank.status for rank in finished] == [LOST, LOST], finished[0].output
    assert "nothing was saved" in finished[0].output

    runs.until(lambda: len(events(runs.folder, "resume")) == 1 and runs.images_saved(), newer)
    os.kill(newer.pid, signal.SIGTERM)
    assert runs.end(newer).status == STOPPED
    log = [json.loads(line) for line in (runs.folder / "events.jsonl").read_text().splitlines()]
    (begins,) = [number for number, event in enumerate(log) if event["event"] == "resume"]
    assert {event["ranks"] for event in log[:begins] if event["event"] == "start"} == {2}
    places = [event["images_seen"] for event in log[begins:] if event["event"] == "checkpoint"]
    assert places == sorted(places)
    assert places[0] > log[begins]["images_seen"]


def test_a_live_run_of_another_session_is_refused_and_continues(runs):
    older = runs.start(job="77")
    runs.until_saved(older)
    refused = runs.end(runs.start(job="78"))
    assert refused.status == REFUSED
    assert f"run={runs.folder} is being trained by SLURM job 77, process {older.pid} on " in refused.output
    assert "Traceback" not in refused.output
    saved = runs.images_saved()
    runs.until(lambda: runs.images_saved() > saved, older)
    os.kill(older.pid, signal.SIGTERM)
    assert runs.end(older).status == STOPPED
    assert read_lease(runs.folder / "lease.json").is_given_back


def test_after_kill_9_the_next_start_on_the_same_machine_waits_for_nothing(runs):
    older = runs.start(pace=NEVER)
    runs.until_saved(older)
    older.kill()
    assert runs.end(older).status == KILLED
    next_one = runs.end(runs.start(pace=NEVER, images=runs.images_saved() + FEW))  # three intervals: an hour
    assert next_one.status == 0, next_one.output


def test_deleting_the_lease_of_a_run_ends_it(runs):
    older = runs.start()
    runs.until_saved(older)
    (runs.folder / "lease.json").unlink()
    assert runs.end(older).status == LOST
