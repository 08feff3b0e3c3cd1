"""The event log: an append-only JSONL file with one writer, the truth every other view is made from.

A resumed run appends to the log it finds; nothing is ever taken back. Readers therefore follow two rules:
a "resume" event withdraws what the lost attempt had logged beyond the place it resumed at, and of two values
at the same place on the image clock the newest counts.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from jaxtyping import Float, Int

from lediflow.errors import UserError
from lediflow.tracking.events import Event, event_line, number, parse_event
from lediflow.tracking.protocol import Tracker

RESUME = "resume"


class Curve(NamedTuple):
    """One value along the image clock, in order."""

    images_seen: Int[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]


class JsonlTracker:
    """Appends each event to the log and flushes it, so that a killed run has told all it did."""

    def __init__(self, path: str | Path):
        self.file = open_for_append(Path(path))

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        self.file.write(event_line(event, images_seen, values))
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def open_for_append(path: Path) -> TextIO:
    """The log, ready for a new line even if a crash tore its last one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = ends_inside_a_line(path)
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write the event log {path}: {error.strerror}; choose another run folder"
        ) from error
    if torn:
        file.write("\n")
    return file


def ends_inside_a_line(path: Path) -> bool:
    """Whether the file's last byte is something other than a newline."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_events(path: str | Path) -> list[Event]:
    """Every event of the log in the order written, torn lines left out; none if there is no log yet."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace") as lines:
        return [event for line in lines if (event := parse_event(line)) is not None]


def standing_events(path: str | Path) -> list[Event]:
    """The events that still hold: without those a later resume withdrew."""
    standing: list[Event] = []
    for event in read_events(path):
        if event["event"] == RESUME:
            standing = [earlier for earlier in standing if earlier["images_seen"] <= event["images_seen"]]
        standing.append(event)
    return standing


def curve(path: str | Path, event: str, key: str) -> Curve:
    """The value named `key` of every `event` along the image clock."""
    newest = dict(logged_points(path, event, key))
    images_seen = np.array(sorted(newest), dtype=np.int64)
    return Curve(images_seen, np.array([newest[place] for place in images_seen.tolist()], dtype=np.float64))


def logged_points(path: str | Path, event: str, key: str) -> Iterator[tuple[int, float]]:
    """(images seen, value) of each standing event that has a number under `key`, oldest first."""
    for entry in standing_events(path):
        value = number(entry.get(key)) if entry["event"] == event else None
        if value is not None:
            yield entry["images_seen"], value


def replay(path: str | Path, tracker: Tracker) -> int:
    """Tells a tracker everything that stands in the log, so that any view can be rebuilt; how many events."""
    events = standing_events(path)
    for event in events:
        values = {key: value for key, value in event.items() if key not in ("time", "event", "images_seen")}
        tracker.record(event["event"], event["images_seen"], **values)
    return len(events)
