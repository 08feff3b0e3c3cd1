"""Jobs and runs together, one row each: asked of SLURM once, and read from the folders."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lediflow.cluster import slurm
from lediflow.cluster.goodput import Held, held_by_accounts, held_by_events, held_by_notes, moments
from lediflow.cluster.jobs import JOBS, JobFolder, JobRecord, all_jobs, job_name
from lediflow.cluster.kinds import Kind, State, array_state, run_state
from lediflow.cluster.run_facts import RunFacts, file_system_time, read_run
from lediflow.cluster.slurm import Accounted, Queued, SlurmError
from lediflow.cluster.states import Evidence, job_state
from lediflow.cluster.task_ids import is_of, tasks
from lediflow.errors import UserError

# Folders of a run, in which no other run is looked for.
INSIDE = {"checkpoints", "averages", "export", "samples", "results", "heartbeats", "stacks", "wandb", JOBS}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A job, or a run without one."""

    name: str
    run: Path
    state: State
    facts: RunFacts
    held: Held
    job: JobFolder | None = None
    record: JobRecord | None = None

    @property
    def share(self) -> float | None:
        """Of the images asked for."""
        seen, total = self.facts.images_seen, self.facts.total_images
        return None if seen is None or not total else seen / total

    @property
    def images_per_second(self) -> float | None:
        return self.facts.images_per_second if self.state.kind is Kind.RUNNING else None

    @property
    def seconds_left(self) -> float | None:
        speed, total = self.images_per_second, self.facts.total_images
        return (total - (self.facts.images_seen or 0)) / speed if speed and total else None

    @property
    def gpu_hours(self) -> float | None:
        """None where nobody knows: of runs without a job."""
        return self.held.gpu_hours if self.record else None

    @property
    def goodput(self) -> float | None:
        has_trained = self.facts.events and self.held.seconds > 0
        return min(1.0, self.facts.training_time.standing / self.held.seconds) if has_trained else None


@dataclass
class Knowledge:
    """What SLURM says of all jobs; `notes` say what it could not."""

    queue: list[Queued] | None = None
    accounts: list[Accounted] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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


@dataclass
class Overview:
    """All jobs and runs of a folder."""

    runs: Path
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.jobs = {folder.name: (folder, folder.read()) for folder in readable(all_jobs(self.runs))}
        self.known = ask_slurm([record for _, record in self.jobs.values()])
        self.file_time = file_system_time(self.runs)

    @cached_property
    def rows(self) -> list[Row]:
        """By name."""
        jobs = [self._job_row(folder, record, {}) for folder, record in self.jobs.values()]
        kinds = {row.name: row.state.kind for row in jobs}
        named = [self._named_after(row, kinds) for row in jobs]
        taken = {row.run for row in jobs}
        others = [self._run_row(run) for run in find_runs(self.runs) if run not in taken]
        return sorted([*named, *others], key=lambda row: row.name)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def queued(self, row: Row) -> list[Queued]:
        """What of the job, or of the tasks of its array, is in the queue."""
        return entries_of(row, self.known.queue or [])

    def asked_again(self, row: Row) -> list[Queued]:
        """As `queued`, now."""
        return entries_of(row, slurm.queue())

    def _job_row(self, folder: JobFolder, record: JobRecord, others: Mapping[str, Kind]) -> Row:
        facts = read_run(Path(record.run), self.file_time)
        state = self.state(folder, record, facts, others)
        return Row(
            name=folder.name,
            run=Path(record.run),
            state=state,
            facts=facts,
            held=self._held(folder, record, facts, state),
            job=folder,
            record=record,
        )

    def _named_after(self, row: Row, kinds: Mapping[str, Kind]) -> Row:
        """The row once it is known what the jobs it waits for are at."""
        if not (row.job and row.record and row.record.after):
            return row
        return replace(row, state=self.state(row.job, row.record, row.facts, kinds))

    def state(
        self, folder: JobFolder, record: JobRecord, facts: RunFacts, others: Mapping[str, Kind]
    ) -> State:
        if record.array is None:
            return job_state(self._evidence(folder, record, record.job_id, facts), others)
        ids = {task: f"{record.job_id}_{task}" for task in range(record.array)}
        found = {task: self._evidence(folder, record, job, facts) for task, job in ids.items()}
        return array_state({task: job_state(evidence, others) for task, evidence in found.items()})

    def _evidence(self, folder: JobFolder, record: JobRecord, job: str | None, facts: RunFacts) -> Evidence:
        queue = [entry for entry in self.known.queue or () if job and is_of(entry.job, job)]
        return Evidence(
            record=record,
            attempts=[entry for entry in folder.attempts() if entry["job"] == job],
            queued=queue[0] if queue else None,
            accounts=[account for account in self.known.accounts if job and is_of(account.job, job)],
            run=facts,
            is_slurm_known=self.known.queue is not None or job is None,
            now=self.now,
        )

    def _held(self, folder: JobFolder, record: JobRecord, facts: RunFacts, state: State) -> Held:
        """Of all starts, under whatever id: by SLURM's accounts, else by the supervisor's notes."""
        ids = {id_ for job in record.job_ids for id_ in (job, *tasks(job, record.array))}
        accounts = [account for account in self.known.accounts if account.job in ids]
        accounted = {account.job for account in accounts if account.seconds}
        noted = [entry for entry in folder.attempts() if entry["job"] not in accounted]
        signs = [*moments(facts.events), *([self.now] if state.kind is Kind.RUNNING else [])]
        gpus = max((entry["gpus"] for entry in folder.attempts() if entry["event"] == "start"), default=0)
        return held_by_accounts(accounts, gpus) + held_by_notes(noted, signs)

    def _run_row(self, run: Path) -> Row:
        facts = read_run(run, self.file_time)
        state = run_state(facts)
        now = self.now if state.kind is Kind.RUNNING else None
        held = held_by_events(facts.events, now)
        return Row(name=job_name(run, self.runs), run=run, state=state, facts=facts, held=held)


def entries_of(row: Row, queue: Sequence[Queued]) -> list[Queued]:
    """Under the job's present id."""
    job = (row.record.job_id if row.record else None) or ""
    ids = [job, *tasks(job, row.record.array if row.record else None)]
    return [entry for entry in queue if any(is_of(entry.job, id_) for id_ in ids)]


def readable(folders: Sequence[JobFolder]) -> Iterator[JobFolder]:
    """Without those whose record is torn: one of them hides no other."""
    for folder in folders:
        try:
            folder.read()
        except UserError:
            continue
        yield folder


def find_runs(runs: Path) -> Iterator[Path]:
    """Run folders below `runs`, wherever they lie, by their configuration or event log."""
    for root, folders, files in os.walk(runs.absolute()):
        folders[:] = sorted(name for name in folders if name not in INSIDE and not name.startswith("."))
        if "events.jsonl" in files:
            yield Path(root)
