"""From a request to a job in the queue: the folder, the copy of the code, the script, sbatch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lediflow.cluster import slurm
from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import JobFolder, JobRecord, now
from lediflow.cluster.submitting.script import write_script
from lediflow.errors import UserError


def submit(folder: JobFolder, record: JobRecord, config: SlurmConfig, after: Sequence[str] = ()) -> JobRecord:
    """Queue the job; it starts when those with the ids `after` have ended well. The record with the new id.

    UserError where it is queued already; SlurmError with SLURM's words where SLURM refuses.
    """
    refuse_twice(folder, record.name)
    record = dataclasses.replace(record, slurm=dataclasses.asdict(config))
    folder.write(record)
    return again(folder, record, config, after)


def again(folder: JobFolder, record: JobRecord, config: SlurmConfig, after: Sequence[str] = ()) -> JobRecord:
    """Queue a job whose folder is there."""
    script = write_script(folder, record, config)
    waiting = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    job = slurm.sbatch(str(script), *waiting)
    record = dataclasses.replace(record, job_ids=[*record.job_ids, job], submitted=now())
    folder.write(record)
    return record


def refuse_twice(folder: JobFolder, name: str) -> None:
    """One job at a time trains into a folder."""
    ids = set(folder.read().job_ids) if folder.record_file.is_file() else set()
    for entry in slurm.queue():
        if {entry.job, entry.job.partition("_")[0]} & ids or entry.name == name:
            raise UserError(
                f"{name} is in the queue already, as job {entry.job} ({entry.state.lower()}); "
                f"look at it with `python -m lediflow.status`, end it with `python -m lediflow.status cancel {name}`"
            )
