"""How ranks exited, and which one was the root cause of a failure."""

import pytest

from lediflow.cluster.running.rank_exits import RankExit, exit_from_srun, read_exits, root_cause, write_exit


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
def test_other_lines_of_srun_give_none(line):
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
