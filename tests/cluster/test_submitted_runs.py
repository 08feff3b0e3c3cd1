"""Submitted runs that fail or never start report the reason once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from harness.submitted import ONE_RANK, TWO_BY_TWO, TWO_NODES, on_every_rank, status, status_row, submit

LONG = (
    "train.images=8000",
    "train.checkpoint.every_images=256",
    "train.log_every_images=640",
    "tracking.progress=false",
)
BREAKING = """
import os, lediflow.training.loop as loop
def break_down(run):
    raise ValueError("a mistake")
if os.environ["SLURM_PROCID"] == "2":
    loop.take_step = break_down
"""


def test_one_of_four_ranks_on_two_nodes_that_raises_ends_the_job_and_is_reported_once_with_its_traceback(
    cluster, runs
):
    broken = on_every_rank(runs / "broken", BREAKING)
    options = (*TWO_BY_TWO, *LONG, broken, "slurm.crash_retries=0")
    run = submit(cluster, runs, "raising", *options)
    end = run.wait_for_end()
    assert (end["decision"], cluster.state(run.job)) == ("failed", "FAILED")
    start = run.noted("start")[0]
    assert (len(start["nodes"]), start["ranks"], start["gpus"]) == (2, 4, 4)
    assert end["reason"].startswith(f"rank 2 on {start['nodes'][1]}: ValueError: a mistake")
    log = (run.folder.log / f"{run.job}.log").read_text()
    assert log.count("ValueError: a mistake\n") == 1
    assert "in break_down" in log


@pytest.mark.parametrize(
    "option, reason",
    [("synthetic_images=0", "nowhere"), ("train.learning_rate=1e30", "finite gradient")],
    ids=["missing data", "no finite gradient"],
)
def test_a_run_that_cannot_continue_fails_with_its_reason_and_is_not_requeued(cluster, runs, option, reason):
    run = submit(
        cluster, runs, f"hopeless-{option[:5]}", *ONE_RANK, *LONG, f"data.path={runs}/nowhere", option
    )
    end = run.wait_for_end()
    assert (end["decision"], cluster.state(run.job)) == ("failed", "FAILED")
    assert reason in end["reason"]
    assert len(run.noted("start")) == 1


def test_a_full_disk_ends_a_run_with_that_reason_and_it_resumes_when_there_is_room(cluster):
    if (disk := cluster.small_disk) is None:
        pytest.skip("a small disk cannot be mounted here")
    run = submit(cluster, disk, "full", *TWO_NODES, *LONG, "train.images=2048")
    saved = run.wait_for_progress()
    fill(disk / "filler")
    cluster.wait_until(lambda: cluster.state(run.job) == "FAILED", "the job fails", 120)
    assert cluster.job(run.job)["Restarts"] == "0"
    found = status_row(run)
    assert found["kind"] == "failed"
    assert "No space left on device" in found["state"]

    (disk / "filler").unlink()
    status(cluster, disk, "resume", "full")
    assert run.wait_for_end()["decision"] == "done"
    assert run.resumes()[-1] >= saved


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(4096))


def test_a_run_in_the_queue_is_not_queued_again(cluster, runs):
    held = "++slurm.additional_parameters={hold: true}"
    submit(cluster, runs, "twice", *TWO_NODES, *LONG, held)
    with pytest.raises(
        AssertionError, match=r"twice is in the queue already, as job \d+.*status cancel twice"
    ):
        submit(cluster, runs, "twice", *TWO_NODES, *LONG)


@pytest.mark.parametrize(
    "option, words",
    [
        ("slurm.partition=nowhere", "slurm.partition"),
        ("slurm.account=nobody", "slurm.account"),
        ("slurm.mem_gb=9999", "slurm.mem_gb"),
    ],
)
def test_a_refusal_has_slurms_own_message_and_the_option_to_change(cluster, runs, option, words):
    with pytest.raises(AssertionError) as refused:
        submit(cluster, runs, "refused", *TWO_NODES, *LONG, option)
    message = str(refused.value).partition("error: ")[2]
    assert words in message
    assert message.count("Batch job submission failed") == 1
