"""Submitted runs continue by themselves after every fault, with the same final weights as without faults."""

from __future__ import annotations

import pytest
from harness.submitted import TWO_BY_TWO, assert_same_end, submit, submit_and_wait

LONG = (
    "train.images=4096",
    "train.checkpoint.every_images=128",
    "train.log_every_images=512",
    "tracking.progress=false",
)


@pytest.fixture(scope="module")
def undisturbed(cluster, runs):
    return submit_and_wait(cluster, runs, "undisturbed", *TWO_BY_TWO, *LONG)


def test_four_ranks_on_two_nodes_are_one_run(undisturbed):
    (start,) = undisturbed.noted("start")
    assert (len(start["nodes"]), start["ranks"], start["gpus"]) == (2, 4, 4)
    assert undisturbed.checkpoint() == 4096
    assert all(path.stat().st_size for path in undisturbed.folder.log.glob("*-rank*"))


def test_a_run_continues_after_every_fault(cluster, runs, undisturbed):
    """In this order: a warning signal, a preemption, a killed rank, `scontrol requeue`, a lost node."""
    run = submit(cluster, runs, "disturbed", *TWO_BY_TWO, *LONG, "slurm.partition=low")
    run.wait_for_progress()
    cluster.run("scancel", "--signal=USR1", run.job)
    run.wait_for_start(2)
    assert run.noted("end")[0]["decision"] == "requeue"
    run.wait_for_progress()
    assert run.resumes() == [run.noted("end")[0]["images"]]  # nothing was lost

    cluster.preempt(run.job)
    run.wait_for_start(3)
    assert run.noted("end")[1]["decision"] == "requeue"
    run.wait_for_progress()
    assert run.resumes()[1] == run.noted("end")[1]["images"]

    saved = run.checkpoint()
    run.kill_rank(3)
    on_other_nodes = run.wait_for_start(4)
    crash = run.noted("end")[2]
    assert (crash["decision"], crash["is_crash"]) == ("requeue", True)
    assert crash["excluded"] == [run.noted("start")[2]["nodes"][1]]
    assert crash["excluded"][0] not in on_other_nodes["nodes"]
    run.wait_for_progress()
    assert run.resumes()[2] >= saved  # only training after the last checkpoint was lost

    cluster.run("scontrol", "requeue", run.job)
    run.wait_for_start(5)
    saved = run.wait_for_progress()

    cluster.kill_node(int(run.noted("start")[4]["nodes"][0].removeprefix("node")))
    run.wait_for_start(6)
    assert run.wait_for_end()["decision"] == "done", cluster.story()
    assert run.resumes()[4] >= saved
    assert_same_end(run, undisturbed)
