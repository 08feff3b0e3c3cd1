"""Runs longer than the time limit of their job, and a preemption without a warning."""

from __future__ import annotations

from harness.submitted import TWO_NODES, assert_same_end, on_every_rank, submit, undisturbed

LONG = (
    "train.images=1024",
    "train.checkpoint.every_images=64",
    "train.log_every_images=512",
    "tracking.progress=false",
)
# a second for each step of the first two attempts: a run of more than a minute that uses little CPU time
SLOW = """
import lediflow.training.loop as loop, os, time
def take_time(*arguments, take_step=loop.take_step):
    time.sleep(int(os.environ.get("SLURM_RESTART_COUNT", 0)) < 2)
    return take_step(*arguments)
loop.take_step = take_time
"""


def test_a_run_continues_over_time_limits_and_a_preemption_without_a_warning(cluster, runs, forks):
    slow = on_every_rank(runs / "slow", SLOW)
    run = submit(
        cluster, runs, "limited", *TWO_NODES, *LONG, slow, "slurm.timeout_min=1", "slurm.partition=hard"
    )
    run.wait_for_start(2)
    first = run.noted("end")[0]
    assert (first["decision"], first["is_crash"]) == ("requeue", False)
    run.wait_for_progress()
    assert run.resumes() == [first["images"]]  # nothing was lost

    saved = run.checkpoint()
    cluster.preempt(run.job)
    run.wait_for_start(3)
    # ended and requeued by SLURM, which on a busy machine kills it before it can record its end
    assert [end["decision"] for end in run.noted("end")[1:]] in ([], ["terminated"])
    assert run.wait_for_end()["decision"] == "done", cluster.story()
    assert run.resumes()[1] >= saved
    assert_same_end(run.run, undisturbed(forks, runs, *LONG))
