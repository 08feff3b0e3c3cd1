"""All that is known of one job, before it is judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lediflow.cluster.jobs import JobRecord
from lediflow.cluster.slurm import Accounted, Queued
from lediflow.cluster.watching.run_facts import RunFacts

# What SLURM's accounting says of a start that is over.
WORDS = {
    "NODE_FAIL": "a node failed",
    "PREEMPTED": "other jobs took its nodes",
    "REQUEUED": "somebody put it back into the queue",
    "BOOT_FAIL": "a node did not boot",
    "TIMEOUT": "its time limit came before it could save",
    "OUT_OF_MEMORY": "it needed more memory than it had asked for (slurm.mem_gb)",
    "CANCELLED": "cancelled",
    "FAILED": "it ended without a word, as where a node is rebooted",
}
# Of these: SLURM starts the job again by itself, unless that is forbidden.
STARTED_AGAIN = ("NODE_FAIL", "PREEMPTED", "REQUEUED", "BOOT_FAIL")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Of a job, or of one task of an array."""

    record: JobRecord
    attempts: Sequence[dict[str, Any]] = ()  # of its present id
    before: Sequence[str] = ()  # all jobs that have to end well first, near ones first
    queued: Queued | None = None
    accounts: Sequence[Accounted] = ()  # of its present id
    run: RunFacts = field(default_factory=RunFacts)
    is_slurm_known: bool = True  # whether SLURM answered: then a job it does not name is not in the queue
    now: float = field(default_factory=time.time)

    @property
    def last_end(self) -> dict[str, Any] | None:
        """How the newest start ended, if it said so. One that SLURM had lost sight of may speak after it."""
        newest = max((entry["restart"] for entry in self.attempts), default=0)
        said = [entry for entry in self.attempts if entry["event"] == "end" and entry["restart"] == newest]
        return said[-1] if said else None

    @property
    def account(self) -> Accounted | None:
        return self.accounts[-1] if self.accounts else None

    @property
    def is_training(self) -> bool:
        return self.record.command[0] == "lediflow.train"


def joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
