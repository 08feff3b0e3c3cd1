"""The same supervised jobs, queued by submitit: one array, whose tasks are the jobs.

submitit pickles a path, nothing else: however long a job waits or how often it comes back, no pickle goes stale.
The batch step is the supervisor; srun, which starts the ranks, is its business and not submitit's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.incarnation import find_incarnation
from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.cluster.running import supervise
from lediflow.cluster.running.task import speak_into
from lediflow.cluster.slurm import SlurmError, key_to_change, said_once
from lediflow.cluster.submitting.script import shell_lines, warning_seconds


@dataclass(frozen=True)
class Supervised:
    """What submitit calls on the first node."""

    folder: str

    def __call__(self) -> None:
        folder = JobFolder(Path(self.folder))
        folder.log.mkdir(parents=True, exist_ok=True)
        speak_into(folder.log / f"{find_incarnation().job}.log")
        supervise.main([self.folder])


def queue_by_submitit(
    folders: Sequence[JobFolder], records: Sequence[JobRecord], config: SlurmConfig
) -> list[str]:
    """The job ids, in order. SlurmError with SLURM's words where it refuses."""
    import submitit  # an extra of the installation

    executor = submitit.AutoExecutor(folder=folders[0].root.parent / ".submitit" / "%A", cluster="slurm")
    executor.update_parameters(**parameters(records, config))
    try:
        # SLURM's words come once, with the error
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():
            jobs = [executor.submit(Supervised(str(folder.root))) for folder in folders]
    except submitit.core.utils.FailedJobError as error:
        said = said_once(str(error))
        raise SlurmError(f"sbatch: {said}{key_to_change(said, 'hydra.launcher.')}", said) from error
    return [job.job_id for job in jobs]


def parameters(records: Sequence[JobRecord], config: SlurmConfig) -> dict[str, Any]:
    """SlurmConfig in submitit's words; only what was chosen."""
    more = {"requeue" if config.requeue else "no-requeue": True, "reservation": config.reservation}
    chosen: dict[str, Any] = {
        "name": records[0].name if len(records) == 1 else common_name(records),
        "nodes": config.nodes,
        "tasks_per_node": config.tasks_per_node,
        "gpus_per_node": config.gpus_per_node,
        "cpus_per_task": config.cpus_per_task,
        "mem_gb": config.mem_gb,
        "timeout_min": config.timeout_min,
        "slurm_signal_delay_s": warning_seconds(config),
        "slurm_array_parallelism": config.array_parallelism or len(records),
        "slurm_setup": shell_lines(records[0].snapshot, config),
        "slurm_use_srun": False,
        "slurm_additional_parameters": {k: v for k, v in more.items() if v} | config.additional_parameters,
    }
    chosen |= {
        f"slurm_{name}": getattr(config, name)
        for name in ("partition", "account", "qos", "constraint", "exclude")
    }
    return {name: value for name, value in chosen.items() if value or name == "slurm_use_srun"}


def common_name(records: Sequence[JobRecord]) -> str:
    """Of a sweep: the experiment's name, which all run folders begin with."""
    return records[0].name.partition(".")[0]
