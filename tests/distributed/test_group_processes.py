"""Ranks that measure together: a ring, exact sums, and one rank's failure ends all and is named."""

import contextlib
import os
import signal
import socket
import sys

import psutil
import pytest
import torch
from harness.patience import wait_until
from harness.processes import SECONDS, Started, torchrun

from lediflow.engine.group import Group, RankFailedError
from lediflow.errors import UserError


def test_blocks_of_any_size_are_passed_around_the_ring_once(forks):
    finished = forks.run_on_ranks(3, "harness.group_rank", "ring")
    for rank, process in enumerate(finished):
        order = [(rank - step - 1) % 3 for step in range(3)]
        assert f"seen {[(origin + 1, float(origin)) for origin in order]}" in process.output


def test_sums_of_numbers_that_one_rank_has_are_exact(forks):
    finished = forks.run_on_ranks(2, "harness.group_rank", "sums")
    expected = [value.hex() for value in (0.1, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0)]
    assert all(f"sum {expected}" in process.output for process in finished)


def test_every_rank_gets_the_same_answers_and_those_to_votes_one_call_later(forks):
    for process in forks.run_on_ranks(3, "harness.group_rank", "votes"):
        assert "votes [[0, 0], [0, 1], [2, 1]]" in process.output
        assert "now [2] 0" in process.output
        assert "rows [[0.0], [1.0], [2.0]]" in process.output
        assert "broadcast rank 0" in process.output


def test_a_rank_that_fails_stops_the_others_at_once_and_is_named(forks):
    finished = forks.run_on_ranks(2, "harness.group_rank", "failing")
    assert all(process.status for process in finished)
    assert (
        "RankFailedError: rank 1 of 2 failed while counting sheep: no sheep in this field"
        in finished[0].output
    )


def test_a_rank_that_fails_alone_is_named_by_those_who_waited_for_it(forks):
    finished = forks.run_on_ranks(3, "harness.group_rank", "lonely")
    assert "ValueError: a slip of the pen" in finished[2].output
    for process in finished[:2]:
        assert "RankFailedError: rank 2 of 3 failed: ValueError: a slip of the pen" in process.output


@pytest.mark.parametrize(("victim", "culprit"), [(0, "rank 0 of 2"), (1, "a rank of 2, not the first,")])
def test_a_killed_rank_ends_the_others_with_a_message(forks, victim, culprit):
    finished = forks.run_on_ranks(2, "harness.group_rank", "killed", victim)
    assert finished[victim].status == -9
    assert finished[1 - victim].status == 1
    assert f"RankFailedError: {culprit} ended without a message" in finished[1 - victim].output


def test_under_torchrun_a_failure_does_not_affect_the_next_section_and_the_ranks_can_join_again():
    said = torchrun(2, "harness.group_rank", "twice")
    assert said.status == 0
    assert said.output.count("rested") == 2
    assert said.output.count("met again: 2.0") == 2


def test_a_rank_ends_at_once_when_torchrun_is_killed_while_it_joins():
    """torchrun is a shell here, whose store takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as store:
        store.settimeout(SECONDS)
        place = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
        place |= {"MASTER_PORT": str(store.getsockname()[1]), "TORCHELASTIC_RUN_ID": "a run"}
        place |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        command = f"{sys.executable} -m harness.group_rank sums & echo rank $!; wait"
        launcher = Started(["sh", "-c", command], place)
        try:
            store.accept()  # the rank is joining
            launcher.process.kill()
            rank = int(launcher.output().split()[1])
            assert wait_until(lambda: not psutil.pid_exists(rank), SECONDS)
            assert "error: torchrun has ended while its ranks were joining" in launcher.output()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.process.pid, signal.SIGKILL)
            launcher.process.wait()


def test_one_rank_needs_no_process_group():
    group = Group()
    with pytest.raises(UserError, match="as it is"), group.together("trying"):
        raise UserError("as it is")
    assert not issubclass(UserError, RankFailedError)
    assert group.all_gather(3) == [3]
    assert group.broadcast(3) == 3
    assert group.agree([1, 0]) == [1, 0]  # at once: there are no other ranks
    assert group.stack(torch.ones(2)).tolist() == [[1.0, 1.0]]
    group.close()
