"""One start of a job, as SLURM tells it to those that run in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Incarnation:
    job: str  # the id that scontrol takes
    restart: int = 0  # how often SLURM has put it back into the queue
    array_task: int | None = None
    nodes: str = ""  # gpu[03-04]
    ranks: int = 1
    gpus: int = 0  # of the whole job

    @property
    def label(self) -> str:
        """Names what it leaves behind."""
        return f"{self.job}-{self.restart}"


def find_incarnation(env: Mapping[str, str] = os.environ) -> Incarnation:
    task = env.get("SLURM_ARRAY_TASK_ID")
    nodes = int(env.get("SLURM_JOB_NUM_NODES", "1"))
    return Incarnation(
        job=env["SLURM_JOB_ID"] if task is None else f"{env['SLURM_ARRAY_JOB_ID']}_{task}",
        restart=int(env.get("SLURM_RESTART_COUNT", "0")),
        array_task=None if task is None else int(task),
        nodes=env.get("SLURM_JOB_NODELIST", ""),
        ranks=nodes * int(env.get("SLURM_NTASKS_PER_NODE", "1")),
        gpus=nodes * len([gpu for gpu in env.get("SLURM_JOB_GPUS", "").split(",") if gpu]),
    )
