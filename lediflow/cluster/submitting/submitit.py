"""The same supervised jobs, queued by submitit as one array whose tasks are the jobs.

submitit pickles nothing but a path, so that a pickle stays valid however long a job waits and however often it is
requeued. The batch step is the supervisor; it starts the ranks by srun itself, not through submitit.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.cluster.jobs import JobFolder, JobRecord, SlurmConfig
from lediflow.cluster.running import supervise
from lediflow.cluster.running.rank_exits import find_attempt
from lediflow.cluster.running.task import redirect_output
from lediflow.cluster.slurm import SlurmError, message_of, option_to_change
from lediflow.cluster.submitting.submission import shell_lines, warning_seconds


@dataclass(frozen=True)
class Supervised:
    """The callable that submitit runs on the first node."""

    folder: str

    def __call__(self) -> None:
        folder = JobFolder(Path(self.folder))
        folder.log.mkdir(parents=True, exist_ok=True)
        redirect_output(folder.log / f"{find_attempt().job}.log")
        supervise.main([self.folder])


def queue_by_submitit(
    folders: Sequence[JobFolder], records: Sequence[JobRecord], config: SlurmConfig
) -> list[str]:
    """Queue the jobs; their ids, in order. SlurmError with SLURM's own message if SLURM refuses them."""
    import submitit  # an optional dependency

    executor = submitit.AutoExecutor(folder=folders[0].root.parent / ".submitit" / "%A", cluster="slurm")
    executor.update_parameters(**parameters(records, config))
    try:
        # SLURM's message is part of the error; submitit would print it a second time
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():
            jobs = [executor.submit(Supervised(str(folder.root))) for folder in folders]
    except submitit.core.utils.FailedJobError as error:
        message = message_of(str(error))
        raise SlurmError(f"sbatch: {message}{option_to_change(message, 'hydra.launcher.')}") from error
    return [job.job_id for job in jobs]


def parameters(records: Sequence[JobRecord], config: SlurmConfig) -> dict[str, Any]:
    """SlurmConfig by submitit's names, without the values that are left to the cluster."""
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
    """Name of a sweep: the experiment, with which the names of all run folders begin."""
    return records[0].name.partition(".")[0]
