"""Submitted runs go on by themselves to their end, whatever the cluster does to them, as if nothing had been."""

from __future__ import annotations

import pytest
from harness.commands import succeed
from harness.curves import assert_same_tensors, newest_state, weights
from harness.submitted import TWO_BY_TWO, Submitted, submit

LONG = (
    "train.images=8000",
    "train.checkpoint.every_images=256",
    "train.log_every_images=640",
    "tracking.progress=false",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The runs' folder, with pictures to learn from."""
    folder = tmp_path_factory.mktemp("runs")
    options = [
        "experiment=smoke",
        "stage=auxiliary",
        "train.images=16",
        "engine.device=cpu",
    ]
    succeed("train", *options, f"data.path={folder}/shards", f"run={folder}/first")
    return folder


@pytest.fixture(scope="module")
def undisturbed(cluster, runs):
    run = submit(cluster, runs, "undisturbed", *TWO_BY_TWO, *LONG)
    assert run.wait_for_end()["decision"] == "done", cluster.story()
    return run


def assert_same_end(run: Submitted, undisturbed: Submitted) -> None:
    assert_same_tensors(newest_state(run.run), newest_state(undisturbed.run))
    assert_same_tensors(weights(run.run), weights(undisturbed.run))


def test_four_ranks_on_two_nodes_are_one_run(undisturbed):
    (start,) = undisturbed.noted("start")
    assert (len(start["nodes"]), start["ranks"], start["gpus"]) == (2, 4, 4)
    assert undisturbed.checkpoint() == 8000
    assert all(path.stat().st_size for path in undisturbed.folder.log.glob("*-rank*"))


def test_it_goes_on_after_every_fault(cluster, runs, undisturbed):
    """One after another: a warning, a preemption, a rank that dies, `scontrol requeue`, a node that dies."""
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
    assert run.resumes()[2] >= saved  # what was lost came after the last checkpoint

    cluster.run("scontrol", "requeue", run.job)
    run.wait_for_start(5)
    saved = run.wait_for_progress()

    cluster.kill_node(int(run.noted("start")[4]["nodes"][0].removeprefix("node")))
    run.wait_for_start(6)
    assert run.wait_for_end()["decision"] == "done", cluster.story()
    assert run.resumes()[4] >= saved
    assert_same_end(run, undisturbed)


def test_it_takes_as_many_time_limits_as_it_needs(cluster, runs, undisturbed):
    wait = "train.log_every_images=16"
    run = submit(
        cluster, runs, "limited", *TWO_BY_TWO, *LONG, "train.images=40000", "slurm.timeout_min=1", wait
    )
    run.wait_for_start(2)
    first = run.noted("end")[0]
    assert (first["decision"], first["is_crash"]) == ("requeue", False)
    run.wait_for_progress()
    assert run.resumes() == [first["images"]]


def test_a_rank_that_raises_ends_the_job_once_with_its_name_and_its_traceback(cluster, runs):
    broken = f"slurm.setup=['export PYTHONPATH=$PYTHONPATH:{runs}/broken']"
    (runs / "broken").mkdir()
    (runs / "broken/sitecustomize.py").write_text(BREAKING)
    options = (*TWO_BY_TWO, *LONG, broken, "slurm.crash_retries=0")
    run = submit(cluster, runs, "raising", *options)
    end = run.wait_for_end()
    assert (end["decision"], cluster.state(run.job)) == ("failed", "FAILED")
    assert end["reason"].startswith(f"rank 3 on {run.noted('start')[0]['nodes'][1]}: ValueError: a mistake")
    log = (run.folder.log / f"{run.job}.log").read_text()
    assert log.count("ValueError: a mistake\n") == 1
    assert "in break_down" in log


BREAKING = """
import os, sys
if os.environ.get("SLURM_PROCID") == "3" and "lediflow.cluster.running.task" in " ".join(sys.orig_argv):
    import lediflow.training.loop as loop
    def break_down(run):
        raise ValueError("a mistake")
    loop.take_step = break_down
"""


@pytest.mark.parametrize(
    "option, reason",
    [("synthetic_images=0", "nowhere"), ("train.learning_rate=1e30", "finite gradient")],
    ids=["missing data", "no finite gradient"],
)
def test_a_run_that_cannot_go_on_fails_with_its_reason_and_is_not_tried_again(cluster, runs, option, reason):
    run = submit(
        cluster, runs, f"hopeless-{option[:5]}", *TWO_BY_TWO, *LONG, f"data.path={runs}/nowhere", option
    )
    end = run.wait_for_end()
    assert (end["decision"], cluster.state(run.job)) == ("failed", "FAILED")
    assert reason in end["reason"]
    assert len(run.noted("start")) == 1


def test_a_run_in_the_queue_is_not_queued_again(cluster, runs):
    submit(cluster, runs, "twice", *TWO_BY_TWO, *LONG)
    with pytest.raises(
        AssertionError, match=r"twice is in the queue already, as job \d+.*status cancel twice"
    ):
        submit(cluster, runs, "twice", *TWO_BY_TWO, *LONG)


@pytest.mark.parametrize(
    "option, words",
    [("slurm.partition=nowhere", "slurm.partition"), ("slurm.mem_gb=9999", "slurm.mem_gb")],
)
def test_what_slurm_refuses_is_said_in_its_words_with_the_key_to_change(cluster, runs, option, words):
    with pytest.raises(AssertionError) as refused:
        submit(cluster, runs, "refused", *TWO_BY_TWO, *LONG, option)
    message = str(refused.value).partition("error: ")[2]
    assert words in message
    assert message.count("Batch job submission failed") == 1


def test_a_start_that_slurm_lost_sight_of_leaves_the_run_to_the_next_one(cluster, runs, undisturbed):
    """Split brain: slurmd dies, the job starts elsewhere, and the ranks of the first start live on."""
    run = submit(cluster, runs, "split", *TWO_BY_TWO, *LONG, "train.images=40000")
    run.wait_for_progress()
    first = run.noted("start")[0]["nodes"]
    for node in first:
        cluster.kill_slurmd(int(node.removeprefix("node")))
    cluster.wait_until(
        run.resumes, "another start goes on", 120
    )  # srun may fail at once where a node was just lost
    second = run.noted("start")[-1]
    assert not {*second["nodes"]} & {*first}
    run.wait_for_progress()
    cluster.wait_until(
        lambda: run.hosts_of_ranks() == {*second["nodes"]}, "the ranks of the first start leave", 60
    )
    resumed = run.resumes()[-1]

    def trained():
        return [event["images_seen"] for event in run.events("train")]

    cluster.wait_until(lambda: trained()[-1] > resumed, "the new start trains", 60)
    seen = trained()
    later = seen[next(number for number, images in enumerate(seen) if images > resumed) :]
    assert later == sorted(later)  # nobody else has written since
