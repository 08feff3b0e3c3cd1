"""All jobs and runs below a folder, one row each, as a table for people and as JSON for programs.

SLURM is queried once; everything else comes from the folders.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JOBS, JobFolder, JobRecord, all_jobs, job_name
from lediflow.cluster.slurm import Accounted, Queued, SlurmError, is_of, tasks
from lediflow.cluster.watching.goodput import (
    HeldTime,
    held_by_accounts,
    held_by_events,
    held_by_notes,
    moments,
)
from lediflow.cluster.watching.run_facts import RunFacts, file_system_time, read_run
from lediflow.cluster.watching.states import JobFacts, JobState, StateKind, array_state, job_state, run_state
from lediflow.errors import UserError
from lediflow.text import aligned_table, duration

# Subfolders of a run, which contain no other runs.
INSIDE = {"checkpoints", "averages", "export", "samples", "results", "heartbeats", "stacks", "wandb", JOBS}

MISSING = "\N{EN DASH}"  # an unknown value in the table


@dataclass
class SlurmSnapshot:
    """The queue and the accounting of all jobs at one time."""

    queue: list[Queued] | None = None  # None: SLURM did not answer
    accounts: list[Accounted] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what SLURM could not answer, for the user

    def queued(self, job: str | None) -> Queued | None:
        """The entry of a job or task in the queue."""
        return next((entry for entry in self.queue or () if job and is_of(entry.job, job)), None)

    def accounted(self, job: str | None) -> list[Accounted]:
        """The attempts of a job or task, oldest first."""
        return [account for account in self.accounts if job and is_of(account.job, job)]


def query_slurm(records: Sequence[JobRecord]) -> SlurmSnapshot:
    """Query the queue and the accounting once for all jobs.

    Without jobs SLURM is not queried; on a cluster without accounting the queue alone is known.
    """
    snapshot = SlurmSnapshot()
    ids = [job for record in records for job in record.job_ids]
    if not ids:
        return snapshot
    try:
        snapshot.queue = slurm.queue(sorted({job.partition("_")[0] for job in ids}))
        snapshot.accounts = slurm.accounting(ids)
    except SlurmError as error:
        missing = "accounting" if snapshot.queue is not None else "queue"
        snapshot.notes.append(
            f"SLURM's {missing} cannot be read here, the records of the jobs are used instead: {error}"
        )
    return snapshot


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """One line of the overview: a job, or a run without one."""

    name: str
    run: Path
    state: JobState
    facts: RunFacts
    held: HeldTime
    job: JobFolder | None = None
    record: JobRecord | None = None

    @property
    def share(self) -> float | None:
        """Images seen over the images requested; None if one of them is unknown."""
        seen, total = self.facts.images_seen, self.facts.total_images
        return None if seen is None or not total else seen / total

    @property
    def images_per_second(self) -> float | None:
        """Training speed; None unless it runs."""
        return self.facts.images_per_second if self.state.kind is StateKind.RUNNING else None

    @property
    def seconds_left(self) -> float | None:
        """Remaining time at the present speed."""
        speed, total = self.images_per_second, self.facts.total_images
        return (total - (self.facts.images_seen or 0)) / speed if speed and total else None

    @property
    def gpu_hours(self) -> float | None:
        """GPU hours of all attempts; None for a run without a job, whose GPUs are unknown."""
        return self.held.gpu_hours if self.record else None

    @property
    def goodput(self) -> float | None:
        """Seconds of training that the weights contain over seconds that machines were held, at most 1."""
        has_trained = self.facts.events and self.held.seconds > 0
        return min(1.0, self.facts.training_time.standing / self.held.seconds) if has_trained else None


@dataclass
class Overview:
    """All jobs and runs below a folder."""

    runs: Path
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.jobs, damaged = read_jobs(self.runs)
        self.slurm = query_slurm([record for _, record in self.jobs.values()])
        self.notes = [*self.slurm.notes, *damaged]
        self.file_time = file_system_time(self.runs)

    @cached_property
    def rows(self) -> list[JobRow]:
        """All rows, sorted by name."""
        jobs = [self._job_row(folder, record, {}) for folder, record in self.jobs.values()]
        kinds = {row.name: row.state.kind for row in jobs}
        with_names = [self._with_dependencies(row, kinds) for row in jobs]
        taken = {row.run for row in jobs}
        others = [self._run_row(run) for run in find_runs(self.runs) if run not in taken]
        return sorted([*with_names, *others], key=lambda row: row.name)

    def row(self, name: str) -> JobRow:
        return next(row for row in self.rows if row.name == name)

    def queued(self, row: JobRow) -> list[Queued]:
        """Entries of the job, or of the tasks of its array, in the queue when the overview was made."""
        return entries_of(row, self.slurm.queue or [])

    def queued_now(self, row: JobRow) -> list[Queued]:
        """Entries of the job, or of the tasks of its array, in the queue now: a new query."""
        return entries_of(row, slurm.queue())

    def _job_row(self, folder: JobFolder, record: JobRecord, others: Mapping[str, StateKind]) -> JobRow:
        facts = read_run(Path(record.run), self.file_time)
        state = self.state(folder, record, facts, others)
        return JobRow(
            name=folder.name,
            run=Path(record.run),
            state=state,
            facts=facts,
            held=self._held(folder, record, facts, state),
            job=folder,
            record=record,
        )

    def _with_dependencies(self, row: JobRow, kinds: Mapping[str, StateKind]) -> JobRow:
        """The row with a state that takes account of the jobs it depends on."""
        if not (row.job and row.record and row.record.after):
            return row
        return replace(row, state=self.state(row.job, row.record, row.facts, kinds))

    def state(
        self, folder: JobFolder, record: JobRecord, facts: RunFacts, others: Mapping[str, StateKind]
    ) -> JobState:
        """State of a job or array; `others` are the kinds of other jobs by name."""
        if record.array is None:
            return job_state(self._job_facts(folder, record, record.job_id, facts), others)
        ids = {task: f"{record.job_id}_{task}" for task in range(record.array)}
        found = {task: self._job_facts(folder, record, job, facts) for task, job in ids.items()}
        return array_state({task: job_state(known, others) for task, known in found.items()})

    def _job_facts(self, folder: JobFolder, record: JobRecord, job: str | None, facts: RunFacts) -> JobFacts:
        return JobFacts(
            record=record,
            attempts=folder.attempts(job) if job else [],
            before=self._before(record),
            queued=self.slurm.queued(job),
            accounts=self.slurm.accounted(job),
            run=facts,
            is_slurm_known=self.slurm.queue is not None or job is None,
            now=self.now,
        )

    def _before(self, record: JobRecord) -> list[str]:
        """Direct dependencies, then theirs, and so on."""
        names = list(record.after)
        for name in names:  # grows during the loop
            behind = self.jobs[name][1].after if name in self.jobs else []
            names += [other for other in behind if other not in names]
        return names

    def _held(self, folder: JobFolder, record: JobRecord, facts: RunFacts, state: JobState) -> HeldTime:
        """Time of all attempts under all SLURM ids: by SLURM's accounting, else by the supervisor's records."""
        ids = {id_ for job in record.job_ids for id_ in (job, *tasks(job, record.array))}
        accounts = [account for account in self.slurm.accounts if account.job in ids]
        accounted = {account.job for account in accounts if account.seconds}
        noted = [entry for entry in folder.attempts() if entry["job"] not in accounted]
        signs = [*moments(facts.events), *([self.now] if state.kind is StateKind.RUNNING else [])]
        gpus = max((entry["gpus"] for entry in folder.attempts() if entry["event"] == "start"), default=0)
        return held_by_accounts(accounts, gpus) + held_by_notes(noted, signs)

    def _run_row(self, run: Path) -> JobRow:
        facts = read_run(run, self.file_time)
        state = run_state(facts)
        now = self.now if state.kind is StateKind.RUNNING else None
        held = held_by_events(facts.events, now)
        return JobRow(name=job_name(run, self.runs), run=run, state=state, facts=facts, held=held)


def entries_of(row: JobRow, queue: Sequence[Queued]) -> list[Queued]:
    """Entries of the queue under the job's current SLURM id."""
    job = (row.record.job_id if row.record else None) or ""
    ids = [job, *tasks(job, row.record.array if row.record else None)]
    return [entry for entry in queue if any(is_of(entry.job, id_) for id_ in ids)]


def read_jobs(runs: Path) -> tuple[dict[str, tuple[JobFolder, JobRecord]], list[str]]:
    """Jobs by name, and an error message for each damaged record; these do not affect other jobs."""
    found, damaged = {}, []
    for folder in all_jobs(runs):
        try:
            found[folder.name] = folder, folder.read()
        except UserError as error:
            damaged.append(str(error))
    return found, damaged


def find_runs(runs: Path) -> Iterator[Path]:
    """Run folders at any depth below `runs`, recognised by their event log."""
    for root, folders, files in os.walk(runs.absolute()):
        folders[:] = sorted(name for name in folders if name not in INSIDE and not name.startswith("."))
        if "events.jsonl" in files:
            yield Path(root)


# --- the table


def percent(share: float | None) -> str:
    """In percent, rounded down, so that 100 % is complete."""
    return MISSING if share is None else f"{int(100 * share)} %"


def speed(images_per_second: float | None) -> str:
    if images_per_second is None:
        return MISSING
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


COLUMNS: dict[str, Callable[[JobRow], str]] = {
    "name": lambda row: row.name,
    "done": lambda row: percent(row.share),
    "images/s": lambda row: speed(row.images_per_second),
    "left": lambda row: MISSING if row.seconds_left is None else duration(row.seconds_left),
    "GPU h": lambda row: MISSING if row.gpu_hours is None else f"{row.gpu_hours:,.1f}",
    "goodput": lambda row: percent(row.goodput),
    "state": lambda row: row.state.words,
}
LEFT_ALIGNED = ("name", "state")


def overview_table(rows: Sequence[JobRow]) -> str:
    """One line per row, numbers right-aligned; the sentence comes last, since it may be wider than the terminal."""
    lines = [[*COLUMNS], *([show(row) for show in COLUMNS.values()] for row in rows)]
    return aligned_table(lines, right=[title not in LEFT_ALIGNED for title in COLUMNS])


def as_json(row: JobRow) -> dict[str, Any]:
    """A row as JSON values; null for what is unknown."""
    record, facts = row.record, row.facts
    return {
        "name": row.name,
        "run": str(row.run),
        "job": record.job_id if record else None,
        "kind": str(row.state.kind),
        "state": row.state.words,
        "remark": facts.remark or None,
        "pictures": facts.newest_pictures or None,
        "images_seen": facts.images_seen,
        "total_images": facts.total_images,
        "images_per_second": row.images_per_second,
        "seconds_left": row.seconds_left,
        "held_seconds": row.held.seconds,
        "training_seconds": facts.training_time.standing,
        "lost_seconds": facts.training_time.withdrawn,
        "goodput": row.goodput,
        "gpu_hours": row.gpu_hours,
        "after": record.after if record else [],
        "pipeline": record.pipeline if record else None,
    }
