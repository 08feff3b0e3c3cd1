"""Which rank the others fell with."""

import pytest

from lediflow.cluster.running.ends import End, first_to_fail, read_ends, told_by_srun, write_end


def ended(rank, error=None, status=1, time=0.0):
    return End(rank=rank, host=f"node{rank}", status=status, error=error, time=time)


@pytest.mark.parametrize(
    "line, rank, host, status",
    [
        ("srun: error: node2: task 3: Killed", 3, "node2", 137),
        ("srun: error: node4: tasks 2-3: Terminated", 2, "node4", 143),
        ("srun: error: gpu-1.site: task 0: Exited with exit code 13", 0, "gpu-1.site", 13),
        ("srun: error: n1: tasks 0,4-7: Segmentation fault (core dumped)\n", 0, "n1", 139),
    ],
)
def test_srun_tells_of_a_rank_and_its_node(line, rank, host, status):
    told = told_by_srun(line)
    assert (told.rank, told.host, told.status) == (rank, host, status)


@pytest.mark.parametrize("line", ["srun: Force Terminated StepId=7.0", "loss 0.3", ""])
def test_other_lines_tell_of_none(line):
    assert told_by_srun(line) is None


def test_what_was_written_is_read_in_the_order_of_ranks(tmp_path):
    ends = [ended(rank, "x") for rank in (10, 2, 0)]
    for end in ends:
        write_end(tmp_path / "ends", end)
    assert read_ends(tmp_path / "ends") == sorted(ends, key=lambda end: end.rank)


def test_the_first_error_is_the_culprit_s():
    assert first_to_fail([ended(0, "b", time=2.0), ended(1, "a", time=1.0)], []).rank == 1


def test_a_rank_that_lost_its_peers_is_not_even_if_its_clock_says_it_was_first():
    lost = ended(0, "RuntimeError: [gloo/pair.cc:537] Connection closed by peer [10.0.0.2]", time=1.0)
    assert first_to_fail([lost, ended(3, "ValueError: wrong", time=2.0)], []).rank == 3


def test_a_rank_that_was_killed_is_known_from_srun():
    lost = ended(0, "RuntimeError: Connection reset by peer", time=1.0)
    told = [
        told_by_srun("srun: error: node2: task 2: Killed"),
        told_by_srun("srun: error: node0: task 0: Exited with exit code 1"),
    ]
    culprit = first_to_fail([lost], told)
    assert (culprit.rank, culprit.host) == (2, "node2")


def test_ranks_that_leave_with_the_state_saved_tell_no_error():
    saved = [ended(0, status=75), ended(1, status=75)]
    killed_behind_them = told_by_srun("srun: error: node2: tasks 2-3: Terminated")
    assert first_to_fail(saved, [killed_behind_them]).status == 75


def test_nothing_known_is_nobody():
    assert first_to_fail([], []) is None
