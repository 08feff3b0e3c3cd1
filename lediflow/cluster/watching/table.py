"""Rows of the overview as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lediflow.cluster.watching.overview import Row
from lediflow.text import aligned_table, duration

MISSING = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """In percent, rounded down, so that 100 % is complete."""
    return MISSING if share is None else f"{int(100 * share)} %"


def speed(images_per_second: float | None) -> str:
    if images_per_second is None:
        return MISSING
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "name": lambda row: row.name,
    "done": lambda row: percent(row.share),
    "images/s": lambda row: speed(row.images_per_second),
    "left": lambda row: MISSING if row.seconds_left is None else duration(row.seconds_left),
    "GPU h": lambda row: MISSING if row.gpu_hours is None else f"{row.gpu_hours:,.1f}",
    "goodput": lambda row: percent(row.goodput),
    "state": lambda row: row.state.words,
}
LEFT_ALIGNED = ("name", "state")


def overview_table(rows: Sequence[Row]) -> str:
    """One line per row, numbers right-aligned; the sentence comes last, since it may be wider than the terminal."""
    lines = [[*COLUMNS], *([show(row) for show in COLUMNS.values()] for row in rows)]
    return aligned_table(lines, right=[title not in LEFT_ALIGNED for title in COLUMNS])


def as_json(row: Row) -> dict[str, Any]:
    """A row as JSON values; null for what is unknown."""
    record, facts = row.record, row.facts
    return {
        "name": row.name,
        "run": str(row.run),
        "job": record.job_id if record else None,
        "kind": str(row.state.kind),
        "state": row.state.words,
        "remark": facts.remark or None,
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
