"""How ranks exited, which one was the root cause of a failure, and the decision that follows."""

import pytest

from lediflow.cluster.jobs import SlurmConfig
from lediflow.cluster.running.attempt import (
    Outcome,
    RankExit,
    crashes_in_a_row,
    decide,
    exit_from_srun,
    read_exits,
    root_cause,
    write_exit,
)
from lediflow.errors import BAD_REQUEST, UserError


def exited(rank, error=None, status=1, time=0.0):
    return RankExit(rank=rank, host=f"node{rank}", status=status, error=error, time=time)


@pytest.mark.parametrize(
    "line, rank, host, status",
    [
        ("srun: error: node2: task 3: Killed", 3, "node2", 137),
        ("srun: error: node4: tasks 2-3: Terminated", 2, "node4", 143),
        ("srun: error: gpu-1.site: task 0: Exited with exit code 13", 0, "gpu-1.site", 13),
        ("srun: error: n1: tasks 0,4-7: Segmentation fault (core dumped)\n", 0, "n1", 139),
    ],
)
def test_a_message_of_srun_gives_rank_node_and_status(line, rank, host, status):
    found = exit_from_srun(line)
    assert (found.rank, found.host, found.status) == (rank, host, status)


@pytest.mark.parametrize("line", ["srun: Force Terminated StepId=7.0", "loss 0.3", ""])
def test_other_lines_of_srun_are_ignored(line):
    assert exit_from_srun(line) is None


def test_exit_records_are_read_in_the_order_of_ranks(tmp_path):
    exits = [exited(rank, "x") for rank in (10, 2, 0)]
    for exit_ in exits:
        write_exit(tmp_path / "ends", exit_)
    assert read_exits(tmp_path / "ends") == sorted(exits, key=lambda exit_: exit_.rank)


def test_the_earliest_error_is_the_root_cause():
    assert root_cause([exited(0, "b", time=2.0), exited(1, "a", time=1.0)], []).rank == 1


def test_a_lost_connection_is_not_the_root_cause_even_if_that_ranks_clock_is_ahead():
    lost = exited(0, "RuntimeError: [gloo/pair.cc:537] Connection closed by peer [10.0.0.2]", time=1.0)
    assert root_cause([lost, exited(3, "ValueError: wrong", time=2.0)], []).rank == 3


def test_a_killed_rank_is_the_root_cause_by_sruns_message():
    lost = exited(0, "RuntimeError: Connection reset by peer", time=1.0)
    from_srun = [
        exit_from_srun("srun: error: node2: task 2: Killed"),
        exit_from_srun("srun: error: node0: task 0: Exited with exit code 1"),
    ]
    cause = root_cause([lost], from_srun)
    assert (cause.rank, cause.host) == (2, "node2")


def test_ranks_that_exit_after_saving_come_before_those_that_srun_ended():
    saved = [exited(0, status=75), exited(1, status=75)]
    killed_behind_them = exit_from_srun("srun: error: node2: tasks 2-3: Terminated")
    assert root_cause(saved, [killed_behind_them]).status == 75


def test_without_exits_there_is_no_root_cause():
    assert root_cause([], []) is None


CRASH = RankExit(rank=3, host="node2", status=1, error="ValueError: wrong")
KILLED = RankExit(rank=1, host="node1", status=137, error="Killed")


def decided(status, cause=None, **more):
    return decide(status, cause, SlurmConfig(**more.pop("config", {})), **more)


def test_a_job_whose_ranks_all_succeeded_is_done_in_spite_of_a_stop_request():
    assert decided(0).outcome is Outcome.DONE
    assert decided(0, is_terminated=True).outcome is Outcome.DONE


@pytest.mark.parametrize("status, words", [(75, "a signal asked"), (79, "the wall time is near")])
def test_a_saved_run_is_requeued_without_excluded_nodes(status, words):
    decision = decided(status)
    assert decision.outcome is Outcome.REQUEUE
    assert words in decision.reason
    assert not decision.is_crash and not decision.excluded


def test_ranks_that_srun_ended_after_the_first_exit_are_not_crashes():
    """srun exits with the largest status: 143 of ranks that got TERM after the first one exited with 75."""
    saved = RankExit(rank=0, host="node1", status=75)
    assert decided(143, saved).outcome is Outcome.REQUEUE
    assert not decided(143, saved).is_crash


def test_a_stop_on_a_users_request_is_not_requeued():
    assert decided(80).outcome is Outcome.STOPPED
    assert decided(143, RankExit(rank=1, host="node1", status=80)).outcome is Outcome.STOPPED  # see above


def test_an_impossible_request_is_not_requeued():
    refused = RankExit(rank=0, host="node1", status=2, error="data.path=nowhere is no folder")
    decision = decided(2, refused)
    assert (decision.outcome, decision.reason) == (Outcome.FAILED, refused.error)


def test_a_job_that_slurm_ends_is_left_to_slurm():
    assert decided(143, is_terminated=True).outcome is Outcome.TERMINATED


def test_a_crash_is_requeued_and_names_rank_node_and_error():
    decision = decided(1, CRASH)
    assert decision.outcome is Outcome.REQUEUE
    assert decision.is_crash
    assert decision.reason == "rank 3 on node2: ValueError: wrong"


def test_a_node_is_excluded_only_for_a_fault_of_the_machine():
    assert decided(1, CRASH).excluded == ()
    assert decided(137, KILLED).excluded == ("node1",)
    broken = RankExit(
        rank=0, host="gpu7", status=1, error="RuntimeError: CUDA error: uncorrectable ECC error"
    )
    assert decided(1, broken).excluded == ("gpu7",)


def test_consecutive_crashes_without_progress_are_limited():
    config = {"crash_retries": 2}
    assert decided(1, CRASH, config=config, crashes=1).outcome is Outcome.REQUEUE
    last = decided(1, CRASH, config=config, crashes=2)
    assert last.outcome is Outcome.FAILED
    assert "crashed 3 times in a row" in last.reason


def test_restarts_are_limited():
    config = {"max_requeues": 5}
    assert decided(75, config=config, restarts=4).outcome is Outcome.REQUEUE
    last = decided(75, config=config, restarts=5)
    assert last.outcome is Outcome.FAILED
    assert "slurm.max_requeues=5" in last.reason and "resume" in last.reason


def test_a_job_that_must_not_be_requeued_names_the_command_that_continues():
    decision = decided(79, config={"requeue": False})
    assert decision.outcome is Outcome.FAILED
    assert "lediflow.status resume" in decision.reason


def end(images, is_crash=True):
    return {"event": "end", "images": images, "is_crash": is_crash}


@pytest.mark.parametrize(
    "ends, images, count",
    [
        ([], None, 0),
        ([end(None), end(None)], None, 2),
        ([end(100), end(200)], 200, 1),  # there was progress between the two
        ([end(100), end(100)], 300, 0),  # there was progress since
        ([end(200), end(200, is_crash=False)], 200, 0),
        ([end(200), {"event": "start"}, end(200)], 200, 2),
    ],
)
def test_consecutive_crashes_are_counted_since_the_newest_checkpoint(ends, images, count):
    assert crashes_in_a_row(ends, images) == count


def test_the_status_of_a_bad_request_is_not_requeued():
    refused = RankExit(rank=0, host="node1", status=BAD_REQUEST, error=str(UserError("no")))
    assert decided(BAD_REQUEST, refused).outcome is Outcome.FAILED
