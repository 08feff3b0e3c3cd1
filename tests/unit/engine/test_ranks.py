"""A process's place, from whichever environment it was started in."""

import pytest

from lediflow.engine.ranks import SLURM_PORTS, Ranks, find_ranks
from lediflow.errors import UserError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "1234"}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "77123",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
}


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A stand-in for SLURM's own tool, which expands lists of nodes."""
    tool = tmp_path / "scontrol"
    tool.write_text('#!/bin/sh\n[ "$*" = "show hostnames gpu[03-04]" ] && printf "gpu03\\ngpu04\\n"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_torchruns_variables_are_taken_as_they_are():
    assert find_ranks(TORCHRUN) == Ranks(5, 8, 1, "node7", 1234)


def test_torchrun_inside_a_slurm_job_is_torchruns_run():
    assert find_ranks(SLURM | TORCHRUN).world_size == 8


def test_a_slurm_task_meets_the_others_on_the_first_node(scontrol):
    ranks = find_ranks(SLURM)
    assert (ranks.rank, ranks.world_size, ranks.local_rank) == (3, 4, 1)
    assert ranks.master_addr == "gpu03"
    assert not ranks.is_first


def test_all_tasks_of_a_slurm_job_choose_one_port_and_other_jobs_another(scontrol):
    ports = {find_ranks(SLURM | {"SLURM_PROCID": str(rank)}).master_port for rank in range(4)}
    assert len(ports) == 1
    assert ports < set(SLURM_PORTS)
    assert find_ranks(SLURM | {"SLURM_JOB_ID": "77124"}).master_port not in ports


def test_a_given_master_address_needs_no_scontrol(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert find_ranks(SLURM | {"MASTER_ADDR": "here", "MASTER_PORT": "9"}) == Ranks(3, 4, 1, "here", 9)


def test_without_scontrol_the_way_out_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"gpu\[03-04\].*MASTER_ADDR"):
        find_ranks(SLURM)


@pytest.mark.parametrize(
    "environment",
    [{}, {key: SLURM[key] for key in SLURM if key != "SLURM_STEP_ID"}, SLURM | {"SLURM_NTASKS": "1"}],
    ids=["no launcher", "a batch script's own shell", "one task"],
)
def test_otherwise_a_process_is_alone_and_first(environment):
    ranks = find_ranks(environment)
    assert (ranks.rank, ranks.world_size, ranks.is_first) == (0, 1, True)


def test_the_place_is_handed_on_as_torchrun_would():
    assert find_ranks(Ranks(5, 8, 1, "node7", 1234).environment()) == Ranks(5, 8, 1, "node7", 1234)
