"""The section on runs: the history of each as a bar along the elapsed time, in shares of the page's width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from lediflow.report.timeline import (
    CHECKPOINT,
    FAULT,
    LOST,
    NOTE,
    OVERHEAD,
    PICTURES,
    TRAINING,
    VALIDATION,
    WAITING,
    Mark,
    Session,
    Timeline,
)
from lediflow.text import duration

CELLS = 600  # of a bar
MINUTE, DAY = 60, 86_400
TICK_SECONDS = (
    1, 2, 5, 10, 20, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 30 * MINUTE,
    3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY, 2 * DAY, 5 * DAY, 10 * DAY, 30 * DAY,
)  # fmt: skip
# in the page; tables and captions have the whole number
MOST_SESSIONS, MOST_MARKS, MOST_CHECKPOINTS = 200, 100, 200
# kinds of time in the order of the bar, with what they are called
KINDS = {
    TRAINING: "training",
    VALIDATION: "validation",
    PICTURES: "pictures",
    OVERHEAD: "starting, loading and saving",
    LOST: "training that was lost and repeated",
    WAITING: "waiting between sessions",
}


class Part(NamedTuple):
    """A stretch of a bar, in percent of its length."""

    kind: str
    left: float
    width: float
    title: str


class Dot(NamedTuple):
    """A mark on a bar, in percent of its length."""

    kind: str
    left: float
    title: str


class Share(NamedTuple):
    """The part of a kind in the elapsed time."""

    kind: str
    name: str
    time: str
    percent: float


class SessionRow(NamedTuple):
    """A session in the table: texts."""

    begun: str
    took: str
    images: str
    lost: str
    ranks: str
    where: str
    commit: str
    ended: str


class HistoryView(NamedTuple):
    """The history of one run as the page shows it."""

    name: str
    elapsed: str
    goodput: str
    parts: list[Part]
    dots: list[Dot]
    shares: list[Share]
    sessions: list[SessionRow]
    left_out: int  # sessions without a row
    marks: list[Mark]
    marks_left_out: int
    ticks: list[tuple[float, str]]


def history_variables(timelines: Sequence[Timeline]) -> dict[str, Any]:
    """The variables of the section's template."""
    return {
        "histories": [history_view(found) for found in timelines],
        "kinds": {kind: name for kind, name in KINDS.items() if any(found.seconds[kind] for found in timelines)},
        "has": {kind: any(mark.kind == kind for found in timelines for mark in found.marks)
                for kind in (CHECKPOINT, FAULT, NOTE)},
    }  # fmt: skip


def history_view(found: Timeline) -> HistoryView:
    """The history of a run."""
    marks = [mark for mark in found.marks if mark.kind != CHECKPOINT]
    rows = [session_row(number, found.sessions) for number in range(len(found.sessions))]
    return HistoryView(
        name=found.name,
        elapsed=duration(found.elapsed),
        goodput="" if found.goodput is None else f"{found.goodput:.0%}",
        parts=parts_of_bar(found),
        dots=dots(found),
        shares=[
            Share(kind, name, duration(found.seconds[kind]), percent(found.seconds[kind], found.elapsed))
            for kind, name in KINDS.items()
            if found.seconds[kind]
        ],
        sessions=rows[:MOST_SESSIONS],
        left_out=max(0, len(rows) - MOST_SESSIONS),
        marks=marks[:MOST_MARKS],
        marks_left_out=max(0, len(marks) - MOST_MARKS),
        ticks=[(percent(seconds, found.elapsed), duration(seconds)) for seconds in ticks(found.elapsed)],
    )


def ticks(elapsed: float) -> list[float]:
    """The ends of the bar, and round times between, at most four and not where the last label is."""
    step = next((step for step in TICK_SECONDS if elapsed <= 5 * step), max(TICK_SECONDS[-1], elapsed))
    between = [step * place for place in range(1, 5) if step * place <= 0.88 * elapsed]
    return [0.0, *between, elapsed] if elapsed > 0 else [0.0]


def percent(seconds: float, elapsed: float) -> float:
    return round(100 * seconds / elapsed, 3) if elapsed > 0 else 100.0


def parts_of_bar(found: Timeline) -> list[Part]:
    """The bar at the resolution of a screen: each of CELLS equal parts has the kind that fills most of it."""
    if found.elapsed <= 0:
        return []
    cell = found.elapsed / CELLS
    filled: list[dict[str, float]] = [{} for _ in range(CELLS)]
    for kind, start, end in found.stretches:
        for number in range(int(start / cell), min(CELLS - 1, int(end / cell)) + 1):
            inside = min(end, (number + 1) * cell) - max(start, number * cell)
            filled[number][kind] = filled[number].get(kind, 0.0) + inside
    kinds = [max(kinds, key=kinds.__getitem__, default=OVERHEAD) for kinds in filled]
    parts: list[Part] = []
    for kind, cells in groupby(range(CELLS), key=kinds.__getitem__):
        numbers = list(cells)
        title = f"{KINDS[kind]}: {duration(len(numbers) * cell)}"
        parts.append(
            Part(kind, round(100 * numbers[0] / CELLS, 3), round(100 * len(numbers) / CELLS, 3), title)
        )
    return parts


def dots(found: Timeline) -> list[Dot]:
    """Checkpoints (evenly thinned where there are many), faults and notes."""
    checkpoints = [mark for mark in found.marks if mark.kind == CHECKPOINT]
    step = -(-len(checkpoints) // MOST_CHECKPOINTS) or 1
    others = [mark for mark in found.marks if mark.kind != CHECKPOINT][:MOST_MARKS]
    return [
        Dot(mark.kind, percent(mark.elapsed, found.elapsed), f"{mark.text}, at {mark.images_seen:,} images")
        for mark in [*checkpoints[::step], *others]
    ]


def session_row(number: int, sessions: Sequence[Session]) -> SessionRow:
    """The table's row of a session."""
    session = sessions[number]
    is_last = number + 1 == len(sessions)
    ended = session.ended or ("last session" if is_last else "resumed by the next")
    returns = f"; went back to a checkpoint by itself: {session.returns}" if session.returns else ""
    return SessionRow(
        begun=session.begun[:16].replace("T", " "),
        took=duration(session.end - session.start),
        images=f"{session.from_images:,} to {session.to_images:,}",
        lost=f"{session.lost_images:,}" if session.lost_images else "",
        ranks="" if session.ranks is None else str(session.ranks),
        where=where(session.facts),
        commit=shown_commit(session.facts.get("commit", "")),
        ended=ended + returns,
    )


def where(facts: Mapping[str, str]) -> str:
    """Host and SLURM job of a session, as far as they are known."""
    job = f"job {facts['job']}" if "job" in facts else ""
    requeue = f"requeue {facts['restart']}" if facts.get("restart", "0") != "0" else ""
    return ", ".join(filter(None, [facts.get("host", ""), job, requeue]))


def shown_commit(commit: str) -> str:
    """The first digits of a commit, and whether files differed from it."""
    number, _, changed = commit.partition("-")
    is_number = len(number) == 40
    return f"{number[:9]}{' with changes' if changed else ''}" if is_number else commit
