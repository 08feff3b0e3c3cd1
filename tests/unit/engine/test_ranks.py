"""A process's place in a group, its share of independent work and its device, from its launcher's variables."""

import pytest
import torch

from lediflow.engine.ranks import SLURM_PORTS, Ranks, Share, choose_device, find_ranks, find_share
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


def test_without_scontrol_a_remedy_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"gpu\[03-04\].*MASTER_ADDR"):
        find_ranks(SLURM)


@pytest.mark.parametrize(
    "environment",
    [{}, {key: SLURM[key] for key in SLURM if key != "SLURM_STEP_ID"}, SLURM | {"SLURM_NTASKS": "1"}],
    ids=["no launcher", "a batch script's own shell", "one task"],
)
def test_without_variables_a_process_is_rank_0_of_1(environment):
    ranks = find_ranks(environment)
    assert (ranks.rank, ranks.world_size, ranks.is_first) == (0, 1, True)


def test_a_single_task_of_srun_has_all_the_work_and_needs_no_address_of_others(monkeypatch):
    monkeypatch.setenv("PATH", "")  # no scontrol
    alone = SLURM | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    assert find_share(alone) == Share(0, 1, 0)
    assert find_ranks(alone).master_addr == "127.0.0.1"


def test_ranks_get_the_variables_that_torchrun_would_set():
    assert find_ranks(Ranks(5, 8, 1, "node7", 1234).environment()) == Ranks(5, 8, 1, "node7", 1234)


def array(task: int, first: int = 0, count: int = 4, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def tasks(number: int, count: int, local: int) -> dict[str, str]:
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID")
    return dict(zip(names, map(str, (number, count, local, 0)), strict=True))


def test_without_variables_a_process_has_all_the_work():
    assert find_share({}) == Share(rank=0, ranks=1, local_rank=0)


def test_torchruns_variables_take_precedence():
    env = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert find_share(env) == Share(5, 8, 1)


def test_slurm_tasks_count_where_srun_started_them():
    assert find_share(tasks(2, 3, 0)) == Share(2, 3, 0)
    batch_script = {name: value for name, value in tasks(0, 3, 0).items() if name != "SLURM_STEP_ID"}
    assert find_share(batch_script) == Share(0, 1, 0)  # one process, independent of the job's resources


@pytest.mark.parametrize(("first", "step"), [(0, 1), (1, 1), (10, 5)])
def test_the_jobs_of_an_array_divide_the_work_wherever_their_numbers_begin(first, step):
    shares = [find_share(array(first + step * place, first, 4, step)) for place in range(4)]
    assert shares == [Share(place, 4, 0) for place in range(4)]


def test_tasks_inside_the_jobs_of_an_array_divide_the_job_s_part():
    shares = [find_share(array(job, count=3) | tasks(task, 2, task)) for job in range(3) for task in range(2)]
    assert [(share.rank, share.ranks) for share in shares] == [(rank, 6) for rank in range(6)]


def test_an_array_with_gaps_is_refused():
    with pytest.raises(UserError, match=r"submit an array without gaps \(--array=0-1\)"):
        find_share(array(7, first=3, count=2))


def test_auto_finds_a_device_and_cpu_is_cpu():
    assert choose_device("auto").type in ("cpu", "cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_a_device_that_pytorch_does_not_know_is_refused():
    with pytest.raises(UserError, match="device=foo is not known to PyTorch; use auto, cpu or cuda"):
        choose_device("foo")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_refused_with_a_remedy():
    with pytest.raises(UserError, match=r"device=cuda .*sees no CUDA GPU.*device=auto"):
        choose_device("cuda")
