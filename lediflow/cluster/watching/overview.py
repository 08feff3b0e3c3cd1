"""Jobs and runs together, one row each: asked of SLURM once, and read from the folders."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JOBS, JobFolder, JobRecord, all_jobs, job_name
from lediflow.cluster.slurm import Queued
from lediflow.cluster.watching.asking import ask_slurm
from lediflow.cluster.watching.evidence import Evidence
from lediflow.cluster.watching.goodput import Held, held_by_accounts, held_by_events, held_by_notes, moments
from lediflow.cluster.watching.kinds import Kind, State, array_state, run_state
from lediflow.cluster.watching.row import Row
from lediflow.cluster.watching.run_facts import RunFacts, file_system_time, read_run
from lediflow.cluster.watching.states import job_state
from lediflow.cluster.watching.task_ids import is_of, tasks
from lediflow.errors import UserError

# Folders of a run, in which no other run is looked for.
INSIDE = {"checkpoints", "averages", "export", "samples", "results", "heartbeats", "stacks", "wandb", JOBS}


@dataclass
class Overview:
    """All jobs and runs of a folder."""

    runs: Path
    now: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.jobs, torn = read_jobs(self.runs)
        self.known = ask_slurm([record for _, record in self.jobs.values()])
        self.known.notes += torn
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
        return Evidence(
            record=record,
            attempts=[entry for entry in folder.attempts() if entry["job"] == job],
            before=self._before(record),
            queued=self.known.queued(job),
            accounts=self.known.accounted(job),
            run=facts,
            is_slurm_known=self.known.queue is not None or job is None,
            now=self.now,
        )

    def _before(self, record: JobRecord) -> list[str]:
        """Jobs that it waits for, then those that they wait for, and so on."""
        names = list(record.after)
        for name in names:  # grows meanwhile
            behind = self.jobs[name][1].after if name in self.jobs else []
            names += [other for other in behind if other not in names]
        return names

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


def read_jobs(runs: Path) -> tuple[dict[str, tuple[JobFolder, JobRecord]], list[str]]:
    """By name; and what is wrong with records that are torn: one of them hides no other."""
    found, torn = {}, []
    for folder in all_jobs(runs):
        try:
            found[folder.name] = folder, folder.read()
        except UserError as error:
            torn.append(str(error))
    return found, torn


def find_runs(runs: Path) -> Iterator[Path]:
    """Run folders below `runs`, wherever they lie, by their configuration or event log."""
    for root, folders, files in os.walk(runs.absolute()):
        folders[:] = sorted(name for name in folders if name not in INSIDE and not name.startswith("."))
        if "events.jsonl" in files:
            yield Path(root)
