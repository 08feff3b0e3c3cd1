"""Runs side by side: a row of the main numbers for each, and the history of each along the elapsed time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lediflow.cluster.jobs import JobFolder, job_folder, job_name
from lediflow.cluster.watching.goodput import moment
from lediflow.errors import UserError
from lediflow.report.content import RunRow
from lediflow.report.runs import RunRecord
from lediflow.report.timeline import LOST, TRAINING, WAITING, Session, Timeline, timeline
from lediflow.text import duration
from lediflow.tracking.secrets import without_secrets

HEADS = (
    "stage",
    "images",
    "training",
    "waiting",
    "lost",
    "goodput",
    "images/s",
    "loss",
    "held-out loss",
    "lowest at",
)
MISSING = "\N{EN DASH}"


def run_timeline(run: RunRecord) -> Timeline:
    """The history of a run, with what its supervisor recorded about the end of each session."""
    found = timeline(run.title, run.log.history)
    for session, reason in ends_of_sessions(found.sessions, job_of(run.folder.root)):
        session.ended = reason
    return found


def job_of(run: Path) -> JobFolder | None:
    """The job that trains in the run folder; None for a run that was never submitted."""
    run = run.absolute()
    for runs in run.parents:
        folder = job_folder(job_name(run, runs), runs)
        try:
            if folder.record_file.exists() and Path(folder.read().run) == run:
                return folder
        except UserError:
            continue
    return None


def ends_of_sessions(sessions: Sequence[Session], job: JobFolder | None) -> list[tuple[Session, str]]:
    """The sessions that a supervisor saw end, and why: `requeue: ...`."""
    found = []
    for entry in job.attempts() if job else []:
        if entry["event"] == "end":
            before = [session for session in sessions if moment({"time": session.begun}) <= moment(entry)]
            reason = f"{entry['decision']}: {entry['reason']}" if entry["reason"] else str(entry["decision"])
            reason = without_secrets(reason)
            found += [(before[-1], reason)] if before else []
    return found


def run_row(run: RunRecord, history: Timeline) -> RunRow:
    """The main numbers of a run."""
    loss, held_out = (run.curve(*names).values for names in (("loss",), ("averaged_loss", "validation")))
    speed = run.curve("images_per_second").values
    seen = max((session.to_images for session in history.sessions), default=None)
    cells = {
        "stage": run.stage,
        "images": MISSING if seen is None else f"{seen:,}" if run.folder.is_exported else f"{seen:,} so far",
        "training": duration(history.seconds[TRAINING]),
        "waiting": duration(history.seconds[WAITING]),
        "lost": duration(history.seconds[LOST]),
        "goodput": MISSING if history.goodput is None else f"{history.goodput:.0%}",
        "images/s": f"{speed[-1]:,.4g}" if speed.size else MISSING,
        "loss": with_minus(loss[-1]) if loss.size else MISSING,
        "held-out loss": with_minus(held_out[-1]) if held_out.size else MISSING,
        "lowest at": MISSING if run.lowest is None else f"{run.lowest:,}",
    }
    return RunRow(name=run.title, cells={head: cells[head] for head in HEADS})


def with_minus(loss: float) -> str:
    """Four digits, with a typographic minus sign."""
    return f"{loss:.4g}".replace("-", "\N{MINUS SIGN}")
