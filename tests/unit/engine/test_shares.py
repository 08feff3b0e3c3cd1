"""Whose share of the work a process takes, from the variables of whoever started it."""

import pytest

from lediflow.engine.shares import Share, find_share
from lediflow.errors import UserError


def array(task: int, first: int = 0, count: int = 4, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "MIN": first, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def tasks(number: int, count: int, local: int) -> dict[str, str]:
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID")
    return dict(zip(names, map(str, (number, count, local, 0)), strict=True))


def test_nobody_else_means_all_of_it():
    assert find_share({}) == Share(rank=0, ranks=1, local_rank=0)


def test_torchrun_says_it_all():
    env = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    assert find_share(env) == Share(5, 8, 1)


def test_slurm_tasks_count_where_srun_started_them():
    assert find_share(tasks(2, 3, 0)) == Share(2, 3, 0)
    batch_script = {name: value for name, value in tasks(0, 3, 0).items() if name != "SLURM_STEP_ID"}
    assert find_share(batch_script) == Share(0, 1, 0)  # one process, whatever the job asked for


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
