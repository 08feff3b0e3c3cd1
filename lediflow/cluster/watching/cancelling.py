"""Ending a job: at once, or once its run is saved."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from lediflow.cluster import slurm
from lediflow.cluster.jobs import JobFolder
from lediflow.cluster.running.decision import Verdict
from lediflow.cluster.slurm import Queued
from lediflow.cluster.watching.overview import Overview
from lediflow.cluster.watching.row import Row
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder

LOOK_EVERY_SECONDS = 3.0


def cancel(overview: Overview, row: Row) -> str:
    """At once; what was done. UserError where nothing of it is in the queue."""
    entries = overview.queued(row)
    if not entries or row.record is None or row.record.job_id is None:
        by_hand = f"; it was not submitted: end its process, or save it first with `cancel {row.name} --save`"
        raise UserError(
            f"{row.name} is not in the queue: {row.state.words}{by_hand if row.job is None else ''}"
        )
    slurm.cancel(row.record.job_id)
    behind = [other.name for other in overview.rows if other.record and row.name in other.record.after]
    also = f"; SLURM cancels with it what waits for it: {', '.join(behind)}" if behind else ""
    return f"{row.name}: job {row.record.job_id} is cancelled{also}"


def save_and_cancel(overview: Overview, row: Row) -> str:
    """Ask the run to save itself and stop, and wait until it has; what was done."""
    entries = overview.queued(row)
    if not row.facts.is_alive and not any(not entry.is_waiting for entry in entries):
        return cancel(overview, row)  # nothing runs that could save
    if row.record is not None and row.record.command[0] != "lediflow.train":
        raise UserError(f"{row.name} is no training and keeps no state; cancel it without --save")
    stop = RunFolder(row.run).stop
    stop.touch()
    if row.job is None or not entries:
        while Overview(overview.runs).row(row.name).facts.is_alive:
            pause()
        return f"{row.name} is saved and has stopped"
    return await_end(row.job, lambda: overview.asked_again(row), stop)


def await_end(folder: JobFolder, look: Callable[[], list[Queued]], stop: Path) -> str:
    """Until the job has left the queue. One that is put back meanwhile is cancelled there."""
    while entries := look():
        if all(entry.is_waiting for entry in entries):
            slurm.cancel(entries[0].job.partition("_[")[0])
            stop.unlink(missing_ok=True)  # else its next start would stop at once
            return f"{folder.name} had gone back into the queue, and is cancelled there; {last_words(folder)}"
        pause()
    stop.unlink(missing_ok=True)
    last = folder.attempts()[-1]
    if last.get("decision") == Verdict.STOPPED:
        return f"{folder.name} is saved, {last['images'] or 0:,} images seen, and has stopped"
    return f"{folder.name} has ended; {last_words(folder)}"


def last_words(folder: JobFolder) -> str:
    """How its last start ended, and what is saved."""
    ends = [entry for entry in folder.attempts() if entry["event"] == "end"]
    if not ends:
        return "its start ended without a word"
    return f"{ends[-1]['reason']}; its newest checkpoint has seen {ends[-1]['images'] or 0:,} images"


def pause() -> None:
    """Between two looks."""
    time.sleep(LOOK_EVERY_SECONDS)
