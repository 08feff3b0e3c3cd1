"""What SLURM knows of all jobs, asked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.slurm import Accounted, Queued, SlurmError
from lediflow.cluster.watching.task_ids import is_of


@dataclass
class Knowledge:
    """`queue` is None where SLURM does not answer; `notes` say what it could not."""

    queue: list[Queued] | None = None
    accounts: list[Accounted] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def queued(self, job: str | None) -> Queued | None:
        """A job's line in the queue, or a task's."""
        return next((entry for entry in self.queue or () if job and is_of(entry.job, job)), None)

    def accounted(self, job: str | None) -> list[Accounted]:
        """Its starts, oldest first."""
        return [account for account in self.accounts if job and is_of(account.job, job)]


def ask_slurm(records: Sequence[JobRecord]) -> Knowledge:
    """Without jobs nothing is asked; a cluster without accounting answers half."""
    known = Knowledge()
    ids = [job for record in records for job in record.job_ids]
    if not ids:
        return known
    try:
        known.queue = slurm.queue(sorted({job.partition("_")[0] for job in ids}))
        known.accounts = slurm.accounting(ids)
    except SlurmError as error:
        missing = "accounting" if known.queue is not None else "queue"
        known.notes.append(f"SLURM's {missing} cannot be read here, the jobs' own notes stand in: {error}")
    return known
