"""Submitting a job again that will not go on by itself, with the jobs behind it that SLURM gave up because of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set

from lediflow.cluster import slurm
from lediflow.cluster.config import SlurmConfig
from lediflow.cluster.jobs import JobFolder, JobRecord
from lediflow.cluster.submitting.submission import again
from lediflow.cluster.watching.kinds import Kind
from lediflow.cluster.watching.overview import Overview
from lediflow.cluster.watching.row import Row
from lediflow.errors import UserError

LEAVING_SECONDS = 120  # that a job may be on its way out of the queue
LOOK_EVERY_SECONDS = 1.0


def resume(overview: Overview, row: Row) -> list[JobRecord]:
    """The job, then those behind it, each with its new id. UserError where it goes on by itself or is done."""
    folder, record = job_of(row)
    refuse_unless_ended(row)
    rows = {other.name: other for other in overview.rows}
    fresh = {row.name: again(folder, record, SlurmConfig(**record.slurm), waits_for(record, rows, {}))}
    for other in given_up_behind(row.name, overview.rows):
        folder, record = job_of(other)
        if other.state.kind is Kind.PENDING and record.job_id:
            slurm.cancel(record.job_id)  # waits for an id that has ended badly
        fresh[other.name] = again(folder, record, SlurmConfig(**record.slurm), waits_for(record, rows, fresh))
    return [*fresh.values()]


def job_of(row: Row) -> tuple[JobFolder, JobRecord]:
    if row.job is None or row.record is None:
        raise UserError(
            f"{row.name} was started by hand, not submitted; repeat the command that started it, it continues"
        )
    return row.job, row.record


def refuse_unless_ended(row: Row) -> None:
    kind = row.state.kind
    if kind is Kind.DONE:
        raise UserError(f"{row.name} is done; there is nothing to resume")
    if kind is Kind.UNKNOWN:
        raise UserError(
            f"whether {row.name} is in the queue is not known: {row.state.words}; try again later"
        )
    if kind.is_open:
        raise UserError(
            f"{row.name} is not at its end ({row.state.words}); it goes on by itself. To start it anew: "
            f"`python -m lediflow.status cancel {row.name}` first"
        )


def waits_for(record: JobRecord, rows: Mapping[str, Row], fresh: Mapping[str, JobRecord]) -> list[str]:
    """Ids of the jobs before it that are not done."""
    found = []
    for name in record.after:
        before = fresh[name] if name in fresh else rows[name].record if name in rows else None
        if name not in fresh and name in rows and rows[name].state.kind.is_broken:
            raise UserError(
                f"{record.name} comes after {name}, which is {rows[name].state.kind}; "
                f"`python -m lediflow.status resume {name}` takes both up"
            )
        is_done = name not in fresh and name in rows and rows[name].state.kind is Kind.DONE
        if before is not None and before.job_id and not is_done:
            found.append(before.job_id)
    return found


def given_up_behind(name: str, rows: Sequence[Row]) -> list[Row]:
    """Jobs behind it that never started and wait for nothing else that ended badly; each after those it waits for."""
    broken = {row.name for row in rows if row.state.kind.is_broken}
    found: list[Row] = []
    taken = {name}
    while behind := [row for row in rows if is_next(row, taken, broken)]:
        found += behind
        taken |= {row.name for row in behind}
    return found


def is_next(row: Row, taken: Set[str], broken: Set[str]) -> bool:
    after = {*row.record.after} if row.record else set()
    return (
        bool(after & taken) and row.name not in taken and not (after & broken) - taken and never_started(row)
    )


def never_started(row: Row) -> bool:
    """Under its present id."""
    folder, record = job_of(row)
    is_over = row.state.kind in (Kind.DONE, Kind.RUNNING)
    ids = [entry["job"].partition("_")[0] for entry in folder.attempts()]
    return not is_over and (record.job_id or "").partition("_")[0] not in ids


def await_leaving(overview: Overview, row: Row) -> Overview:
    """The overview once SLURM has cleared the job's last start away, where it is at that."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while is_leaving(overview, row) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_SECONDS)
        overview = Overview(overview.runs)
    return overview


def is_leaving(overview: Overview, row: Row) -> bool:
    states = [entry.state for entry in overview.queued(row)]
    return bool(states) and all(state == "COMPLETING" for state in states)
