"""What a user does with a job by name: look it up, cancel it with or without saving, resume it and its dependents."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JobFolder, JobRecord, SlurmConfig, newest_end
from lediflow.cluster.running.attempt import Outcome
from lediflow.cluster.slurm import Queued
from lediflow.cluster.submitting.submission import submit_again
from lediflow.cluster.watching.overview import JobRow, Overview
from lediflow.cluster.watching.states import StateKind
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder

SAVE_LOOK_SECONDS = 3.0  # interval of looking whether a run has saved
LEAVING_LOOK_SECONDS = 1.0


def wait_a_little() -> None:
    """Pause between two looks at a run that is saving."""
    time.sleep(SAVE_LOOK_SECONDS)


# --- lookup


def lookup(rows: Sequence[JobRow], name: str) -> JobRow:
    """The row of a job or run by the job's name, the path of a folder, or a SLURM id.

    UserError with the nearest names if there is none.
    """
    for row in rows:
        if (
            name == row.name
            or name.partition("_")[0] in ids(row)
            or name in ids(row)
            or is_folder_of(row, name)
        ):
            return row
    names = [row.name for row in rows]
    nearest = difflib.get_close_matches(name.strip("/").replace("/", "."), names, n=3, cutoff=0.4)
    if not names:
        raise UserError(
            f"there is no job or run {name!r}, nor any other; give the folder of runs: --runs=RUNS"
        )
    raise UserError(
        f"there is no job or run {name!r}; "
        + (f"nearest names: {', '.join(nearest)}" if nearest else "`lediflow.status` lists all")
    )


def ids(row: JobRow) -> list[str]:
    return row.record.job_ids if row.record else []


def is_folder_of(row: JobRow, path: str) -> bool:
    """Whether a path is that of the run folder or of the job folder."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links are not resolved, nor are they in the record
    return absolute in (row.run, row.job.root if row.job else None)


# --- cancel


def cancel(overview: Overview, row: JobRow) -> str:
    """Cancel a job at once; a sentence about the outcome. UserError if the job is not in the queue."""
    entries = overview.queued(row)
    if not entries or row.record is None or row.record.job_id is None:
        by_hand = f"; it was not submitted: end its process, or save it first with `cancel {row.name} --save`"
        raise UserError(
            f"{row.name} is not in the queue: {row.state.words}{by_hand if row.job is None else ''}"
        )
    slurm.cancel(row.record.job_id)
    dependents = [other.name for other in overview.rows if other.record and row.name in other.record.after]
    also = f"; SLURM also cancels the jobs that wait for it: {', '.join(dependents)}" if dependents else ""
    return f"{row.name}: job {row.record.job_id} is cancelled{also}"


def save_and_cancel(overview: Overview, row: JobRow, pause: Callable[[], None] = wait_a_little) -> str:
    """Request that the run saves its state and stops, and wait for it; a sentence about the outcome.

    `pause` is called between two looks. UserError for a job that is not a training.
    """
    entries = overview.queued(row)
    if not row.facts.is_alive and not any(not entry.is_waiting for entry in entries):
        return cancel(overview, row)  # nothing is running that could save
    if row.record is not None and row.record.command[0] != "lediflow.train":
        raise UserError(f"{row.name} is not a training and keeps no state; cancel it without --save")
    stop = RunFolder(row.run).stop
    stop.touch()
    if row.job is None or not entries:
        while Overview(overview.runs).row(row.name).facts.is_alive:
            pause()
        return f"{row.name} is saved and has stopped"
    return await_end(row.job, lambda: overview.queued_now(row), stop, pause)


def await_end(
    folder: JobFolder, look: Callable[[], list[Queued]], stop: Path, pause: Callable[[], None]
) -> str:
    """Wait until the job has left the queue; if it is requeued in that time, cancel it."""
    while entries := look():
        if all(entry.is_waiting for entry in entries):
            slurm.cancel(entries[0].job.partition("_[")[0])
            stop.unlink(missing_ok=True)  # else the next attempt would stop at once
            return f"{folder.name} was requeued meanwhile, and is cancelled now; {how_it_ended(folder)}"
        pause()
    stop.unlink(missing_ok=True)
    end = newest_end(folder.attempts(folder.read().job_id))
    if end and end["decision"] == Outcome.STOPPED:
        return f"{folder.name} is saved, {end['images'] or 0:,} images seen, and has stopped"
    return f"{folder.name} has ended; {how_it_ended(folder)}"


def how_it_ended(folder: JobFolder) -> str:
    """How the newest attempt ended, and what is saved."""
    end = newest_end(folder.attempts(folder.read().job_id))
    if end is None:
        return "its attempt ended without a record"
    return f"{end['reason']}; its newest checkpoint has seen {end['images'] or 0:,} images"


# --- resume


def resume(overview: Overview, row: JobRow) -> list[JobRecord]:
    """Submit a job again, then the dependents that SLURM cancelled because of it; their records with the new ids.

    UserError if the job is done or continues by itself.
    """
    folder, record = job_of(row)
    refuse_unless_ended(row)
    rows = {other.name: other for other in overview.rows}
    fresh = {row.name: submit_again(folder, record, SlurmConfig(**record.slurm), waits_for(record, rows, {}))}
    for other in cancelled_dependents(row.name, overview.rows):
        folder, record = job_of(other)
        if other.state.kind is StateKind.PENDING and record.job_id:
            slurm.cancel(record.job_id)  # waits for an id that has failed
        after = waits_for(record, rows, fresh)
        fresh[other.name] = submit_again(folder, record, SlurmConfig(**record.slurm), after)
    return [*fresh.values()]


def job_of(row: JobRow) -> tuple[JobFolder, JobRecord]:
    """Folder and record of a row; UserError for a run without a job."""
    if row.job is None or row.record is None:
        raise UserError(
            f"{row.name} was started by hand, not submitted; repeat the command that started it, it continues"
        )
    return row.job, row.record


def refuse_unless_ended(row: JobRow) -> None:
    """UserError if the job is done, may be in the queue, or continues by itself."""
    kind = row.state.kind
    if kind is StateKind.DONE:
        raise UserError(f"{row.name} is done; there is nothing to resume")
    if kind is StateKind.UNKNOWN:
        raise UserError(
            f"it is unknown whether {row.name} is in the queue: {row.state.words}; try again later"
        )
    if kind.is_open:
        raise UserError(
            f"{row.name} has not ended ({row.state.words}); it continues by itself. To restart it: "
            f"`python -m lediflow.status cancel {row.name}` first"
        )


def waits_for(record: JobRecord, rows: Mapping[str, JobRow], fresh: Mapping[str, JobRecord]) -> list[str]:
    """SLURM ids of its dependencies that are not done. UserError if one of them failed and is not submitted again."""
    found = []
    for name in record.after:
        before = fresh[name] if name in fresh else rows[name].record if name in rows else None
        if name not in fresh and name in rows and rows[name].state.kind.is_broken:
            raise UserError(
                f"{record.name} depends on {name}, which is {rows[name].state.kind}; "
                f"`python -m lediflow.status resume {name}` resumes both"
            )
        is_done = name not in fresh and name in rows and rows[name].state.kind is StateKind.DONE
        if before is not None and before.job_id and not is_done:
            found.append(before.job_id)
    return found


def cancelled_dependents(name: str, rows: Sequence[JobRow]) -> list[JobRow]:
    """Direct and indirect dependents of a job that never started, each after its own dependencies.

    Those that also depend on another job that failed are left out.
    """
    broken = {row.name for row in rows if row.state.kind.is_broken}
    found: list[JobRow] = []
    taken = {name}
    while dependents := [row for row in rows if is_dependent(row, taken, broken)]:
        found += dependents
        taken |= {row.name for row in dependents}
    return found


def is_dependent(row: JobRow, taken: Set[str], broken: Set[str]) -> bool:
    """Whether a job depends on one of `taken`, on no other broken job, and never started."""
    after = {*row.record.after} if row.record else set()
    return (
        bool(after & taken) and row.name not in taken and not (after & broken) - taken and never_started(row)
    )


def never_started(row: JobRow) -> bool:
    """Whether there was no attempt under the current SLURM id."""
    folder, record = job_of(row)
    is_over = row.state.kind in (StateKind.DONE, StateKind.RUNNING)
    started = [entry["job"].partition("_")[0] for entry in folder.attempts()]
    return not is_over and (record.job_id or "").partition("_")[0] not in started


def await_leaving(overview: Overview, row: JobRow) -> Overview:
    """Wait while SLURM clears away the job's last attempt; a new overview if it took time."""
    deadline = time.monotonic() + slurm.CLEARING_SECONDS
    while is_leaving(overview, row) and time.monotonic() < deadline:
        time.sleep(LEAVING_LOOK_SECONDS)
        overview = Overview(overview.runs)
    return overview


def is_leaving(overview: Overview, row: JobRow) -> bool:
    states = [entry.state for entry in overview.queued(row)]
    return bool(states) and all(state == "COMPLETING" for state in states)
