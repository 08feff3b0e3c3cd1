"""Which share of work that needs no messages is mine?

Read from the environment, without a process group: torchrun's variables or SLURM's tasks, and on top of either the
place in a job array (`sbatch --array=0-7`): task p of job j is process j * tasks + p of jobs * tasks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lediflow.errors import UserError


@dataclass(frozen=True)
class Share:
    """Every `ranks`-th piece, beginning with `rank`, done on the machine's `local_rank`-th device."""

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0


def find_share(env: Mapping[str, str] = os.environ) -> Share:
    """This process's share; all of it where nobody started several processes."""
    inside, (job, jobs) = _inside_job(env), _in_array(env)
    return Share(job * inside.ranks + inside.rank, jobs * inside.ranks, inside.local_rank)


def _inside_job(env: Mapping[str, str]) -> Share:
    if "RANK" in env and "WORLD_SIZE" in env:
        rank = int(env["RANK"])
        return Share(rank, int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", rank)))
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:  # started by srun, not by the batch script itself
        local = int(env.get("SLURM_LOCALID", 0))
        return Share(int(env["SLURM_PROCID"]), int(env.get("SLURM_NTASKS", 1)), local)
    return Share()


def _in_array(env: Mapping[str, str]) -> tuple[int, int]:
    """Place in the job array and its length."""
    if "SLURM_ARRAY_TASK_ID" not in env:
        return 0, 1
    task, first, jobs, step = (
        int(env[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "COUNT", "STEP")
    )
    place, rest = divmod(task - first, step)
    if rest or place >= jobs:
        raise UserError(
            f"task {task} of a job array of {jobs} from {first} in steps of {step} has no place in a row of "
            f"{jobs}; submit an array without gaps (--array=0-{jobs - 1}), or say rank=... ranks=..."
        )
    return place, jobs
