"""The event log: an append-only JSONL file in the run folder, from which every other view of a run is made.

One event is one JSON object on one line:

    {"time": "2026-03-01T09:30:00.125+00:00", "event": "train", "images_seen": 4096, "loss": 0.412}

The log stays strict JSON: a loss that is NaN is written as the string "nan", which `float` reads.

A resumed run appends to the log it finds; no line is ever removed. Readers therefore follow two rules: a "resume"
event discards what was logged beyond the place it resumed at, a "start" (an attempt that ended before its first
checkpoint, begun again) what was logged beyond 0 images; and of two values at the same place on the image clock the
newest counts.
"""

import errno
import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lediflow.errors import UserError
from lediflow.records import UNREADABLE

log = logging.getLogger(__name__)

Event = dict[str, Any]
START, RESUME = "start", "resume"
BEGINNINGS = (START, RESUME)  # of a session; what was logged beyond its place is discarded
PICTURES = "pictures"  # the event, and the key of its files
TURNED = "held_out_turned"  # the held-out loss has begun to rise; at most once in a run, with a message

LOCK_SECONDS = 1.0  # how long a thread waits for another thread's write


# --- One event -----------------------------------------------------------------------------------------------------


def event_line(event: str, images_seen: int, values: dict[str, Any]) -> str:
    """One line of the log, newline included."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    plain_values = {key: plain(value) for key, value in values.items()}
    return json.dumps({"time": time, "event": event, "images_seen": images_seen, **plain_values}) + "\n"


def plain(value: Any) -> Any:
    """The value as JSON stores it: tensors and arrays become numbers or lists of numbers, paths become strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def parse_event(line: str) -> Event | None:
    """The event on a line of the log; None if the line is torn (by a crash) or not a valid event."""
    try:
        event = json.loads(line)
    except UNREADABLE:
        return None
    return event if isinstance(event, dict) and is_valid(event) else None


def is_valid(event: Event) -> bool:
    """Whether an event has a name, a place on the image clock and an ISO 8601 time."""
    images_seen = event.get("images_seen")
    if (
        not isinstance(event.get("event"), str)
        or type(images_seen) is not int
        or not 0 <= images_seen < 2**63
    ):
        return False
    try:
        return bool(datetime.fromisoformat(event["time"]))
    except (LookupError, ValueError, TypeError):
        return False


def number(value: Any) -> float | None:
    """The value as a float, where "nan", "inf" and "-inf" count as numbers; None if it is not a number."""
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        return None
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """All numbers in a value, each with its own name: items of lists and dicts are `key/0`, `key/name`."""
    if isinstance(value, (dict, list)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(f"{key}/{name}", item)
    elif (known := number(value)) is not None:
        yield key, known


class LoggedPicture(NamedTuple):
    """A file that an event `pictures` names."""

    name: str
    path: Path
    caption: str | None


def logged_pictures(event: Event, run_folder: Path) -> list[LoggedPicture]:
    """The pictures of an event whose files are inside the run folder, whether they exist or not."""
    pictures, root = event.get(PICTURES), run_folder.resolve()
    if event["event"] != PICTURES or not isinstance(pictures, dict):
        return []
    found = []
    for name, about in pictures.items():
        file, caption = (about.get("file"), about.get("caption")) if isinstance(about, dict) else (None, None)
        path = run_folder / str(file or "")
        if file and path.resolve().is_relative_to(root):
            found.append(LoggedPicture(name, path, caption if isinstance(caption, str) else None))
    return found


# --- Writing -------------------------------------------------------------------------------------------------------


class JsonlTracker:
    """Appends each event to the log immediately, so that a killed run leaves everything it did. Thread-safe.

    If the disk is full, lines are kept in memory and written with the next event; training continues. A write
    that hangs does not block other threads: they queue their lines, and the next thread that gets the lock writes them.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.file = open_for_append(self.path)
        self.waiting: deque[bytes] = deque()
        self.lock = Lock()
        self.is_failing = False

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        self.waiting.append(event_line(event, images_seen, values).encode())
        self.write_waiting()

    def close(self) -> None:
        self.write_waiting()
        self.file.close()

    def write_waiting(self) -> None:
        """Write the queued lines; if that fails, they stay queued."""
        if not self.lock.acquire(timeout=LOCK_SECONDS):
            return
        try:
            if self.is_failing and ends_inside_a_line(self.path):
                self.append(b"\n")
            while self.waiting:
                self.append(self.waiting[0])
                self.waiting.popleft()
            self.is_failing = False
        except OSError as error:
            if not self.is_failing:
                log.warning("%s cannot be written (%s); events wait until it can", self.path, error.strerror)
            self.is_failing = True
        finally:
            self.lock.release()

    def append(self, line: bytes) -> None:
        """Write the whole line with one unbuffered call."""
        if self.file.write(line) != len(line):
            # a short write means that the disk is full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_for_append(path: Path) -> FileIO:
    """Open the log for a new line, even if a crash tore its last line. UserError if it cannot be opened."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = ends_inside_a_line(path)
        file = FileIO(path, "a")
        if torn:
            file.write(b"\n")
    except OSError as error:
        raise UserError(
            f"cannot write the event log {path}: {error.strerror}; choose another run folder"
        ) from error
    return file


def ends_inside_a_line(path: Path) -> bool:
    """Whether the file's last byte is something other than a newline."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


# --- Reading -------------------------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """One value along the image clock, in order."""

    images_seen: Int[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]


def read_events(path: str | Path) -> list[Event]:
    """All events of the log in the order written, without torn lines; an empty list if there is no log yet."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace") as lines:
        return [event for line in lines if (event := parse_event(line)) is not None]


def standing_events(path: str | Path) -> list[Event]:
    """The events of the log at `path` that no later start or resume has discarded."""
    return standing(read_events(path))


def has_event(path: str | Path, event: str) -> bool:
    """Whether the log has a valid event of this name since the last start (a new run continues the folder's log)."""
    names = [entry["event"] for entry in standing_events(path)]
    begun = len(names) - 1 - names[::-1].index(START) if START in names else 0
    return event in names[begun:]


def standing(events: Iterable[Event]) -> list[Event]:
    """The events that no later start or resume has discarded."""
    events = list(events)
    return [
        events[index]
        for index in standing_indices((event["event"], event["images_seen"]) for event in events)
    ]


def standing_indices(places: Iterable[tuple[str, int]]) -> list[int]:
    """Ascending indices of the events that no later start or resume has discarded, from all names and places."""
    left: list[int] = []
    seen: list[int] = []
    for index, (name, images_seen) in enumerate(places):
        if name in BEGINNINGS:  # a start that follows an attempt without a checkpoint is at 0 images
            left = [earlier for earlier in left if seen[earlier] <= images_seen]
        seen.append(images_seen)
        left.append(index)
    return left


def curve(path: str | Path, event: str, key: str) -> Curve:
    """The number under `key` of every event named `event`, along the image clock."""
    newest = dict(logged_points(path, event, key))
    images_seen = np.array(sorted(newest), dtype=np.int64)
    return Curve(images_seen, np.array([newest[place] for place in images_seen.tolist()], dtype=np.float64))


def logged_points(path: str | Path, event: str, key: str) -> Iterator[tuple[int, float]]:
    """(images seen, value) of each standing event that has a number under `key`, oldest first."""
    for entry in standing_events(path):
        value = number(entry.get(key)) if entry["event"] == event else None
        if value is not None:
            yield entry["images_seen"], value
