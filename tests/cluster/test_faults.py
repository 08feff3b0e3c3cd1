"""Submitted runs continue by themselves after every fault, with the same final weights as without faults."""

from __future__ import annotations

from harness.submitted import TWO_NODES, assert_same_end, braked, submit, undisturbed

LONG = (
    "train.images=1536",
    "train.checkpoint.every_images=64",
    "train.log_every_images=512",
    "tracking.progress=false",
)


def test_a_run_on_two_nodes_continues_after_every_fault(cluster, runs, forks):
    """In this order: a warning signal, a preemption, a killed rank, `scontrol requeue`. A lost node: test_status."""
    slow, release = braked(runs / "slow")
    run = submit(cluster, runs, "disturbed", *TWO_NODES, *LONG, slow, "slurm.partition=low")
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
    run.kill_rank(1)
    on_other_nodes = run.wait_for_start(4)
    crash = run.noted("end")[2]
    assert (crash["decision"], crash["is_crash"]) == ("requeue", True)
    assert crash["excluded"] == [run.noted("start")[2]["nodes"][1]]
    assert crash["excluded"][0] not in on_other_nodes["nodes"]
    run.wait_for_progress()
    assert run.resumes()[2] >= saved  # only training after the last checkpoint was lost

    saved = run.checkpoint()
    cluster.run("scontrol", "requeue", run.job)
    run.wait_for_start(5)
    release.touch()
    assert run.wait_for_end()["decision"] == "done", cluster.story()
    assert run.resumes()[3] >= saved
    assert run.checkpoint() == 1536
    assert all(path.stat().st_size for path in run.folder.log.glob("*-rank*"))
    assert_same_end(run.run, undisturbed(forks, runs, *LONG))
