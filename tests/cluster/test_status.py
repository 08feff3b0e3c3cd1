"""`lediflow.status` on jobs with faults: states, goodput, cancel and resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.forks import Forks
from harness.submitted import TWO_NODES, assert_same_end, braked, status, status_row, submit, undisturbed

LONG = ("train.images=40000", "train.checkpoint.every_images=64", "train.log_every_images=32")
SHORTER = "train.images=2048"


def test_a_lost_node_does_not_end_the_job_and_counts_in_goodput(
    cluster: Cluster, runs: Path, forks: Forks
) -> None:
    slow, release = braked(runs / "slow-lost")
    run = submit(cluster, runs, "lost", *TWO_NODES, *LONG, SHORTER, slow)
    saved = run.wait_for_progress()
    assert status_row(run)["kind"] == "running"
    kinds = []

    def is_elsewhere() -> bool:
        kinds.append(status_row(run)["kind"])
        return len(run.noted("start")) == 2

    cluster.kill_node(int(run.noted("start")[0]["nodes"][1].removeprefix("node")))
    cluster.wait_until(is_elsewhere, "the second attempt", 120)
    assert {*kinds} <= {"running", "pending"}
    release.touch()
    assert run.wait_for_end()["decision"] == "done"
    assert run.resumes()[0] >= saved
    assert_same_end(run.run, undisturbed(forks, runs, *LONG, SHORTER))
    found = status_row(run)
    assert (found["state"], found["images_seen"]) == ("done", 2048)
    accounts = [float(line) for line in elapsed(cluster, run.job)]
    assert found["held_seconds"] == sum(accounts)
    assert found["gpu_hours"] == pytest.approx(2 * sum(accounts) / 3600)
    assert 0 < found["goodput"] == found["training_seconds"] / sum(accounts) < 1


def elapsed(cluster: Cluster, job: str) -> list[str]:
    """Seconds of each attempt, by sacct."""
    return cluster.run(
        "sacct", "--duplicates", "--allocations", "--noheader", "--parsable2", "--format=ElapsedRaw", "--jobs", job
    ).split()  # fmt: skip


def test_a_run_is_saved_before_it_is_cancelled_and_resumes_from_there(cluster: Cluster, runs: Path) -> None:
    slow, _ = braked(runs / "slow-saved")
    run = submit(cluster, runs, "saved", *TWO_NODES, *LONG, slow)
    run.wait_for_progress()
    assert "is saved" in status(cluster, runs, "cancel", "saved", "--save")
    saved = run.checkpoint()
    assert status_row(run)["kind"] == "stopped"
    assert "saved is job" in status(cluster, runs, "resume", "saved")
    assert len(run.record.job_ids) == 2
    run.wait_for_progress()
    assert run.resumes() == [saved]
    assert "continuing at" in status(cluster, runs, "logs", "saved")
    with pytest.raises(AssertionError, match="has not ended"):
        status(cluster, runs, "resume", "saved")
    assert "is cancelled" in status(cluster, runs, "cancel", run.job)
    cluster.wait_until(lambda: status_row(run)["kind"] == "cancelled", "the job is cancelled")
