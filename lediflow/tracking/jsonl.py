"""Reading the event log: an append-only JSONL file, the truth every other view is made from.

A resumed run appends to the log it finds; nothing is ever taken back. Readers therefore follow two rules:
a "resume" event withdraws what the lost attempt had logged beyond the place it resumed at, and of two values
at the same place on the image clock the newest counts.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lediflow.tracking.events import Event, number, parse_event
from lediflow.tracking.protocol import Tracker

START, RESUME = "start", "resume"


class Curve(NamedTuple):
    """One value along the image clock, in order."""

    images_seen: Int[np.ndarray, " points"]
    values: Float[np.ndarray, " points"]


class BinnedCurve(NamedTuple):
    """A value by bin along the image clock, in order; nan where a bin was empty."""

    images_seen: Int[np.ndarray, " points"]
    values: Float[np.ndarray, "points bins"]


def read_events(path: str | Path) -> list[Event]:
    """Every event of the log in the order written, torn lines left out; none if there is no log yet."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace") as lines:
        return [event for line in lines if (event := parse_event(line)) is not None]


def standing_events(path: str | Path) -> list[Event]:
    """The events that still hold: without those a later resume withdrew."""
    return standing(read_events(path))


def has_event(path: str | Path, event: str) -> bool:
    """Whether the log has a valid event of this name since the last start (a new run continues the folder's log)."""
    names = [entry["event"] for entry in standing_events(path)]
    begun = len(names) - 1 - names[::-1].index(START) if START in names else 0
    return event in names[begun:]


def standing(events: Iterable[Event]) -> list[Event]:
    """The events of a log that no later return to a checkpoint has discarded."""
    left: list[Event] = []
    for event in events:
        if event["event"] == RESUME:
            left = [earlier for earlier in left if earlier["images_seen"] <= event["images_seen"]]
        left.append(event)
    return left


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


def binned_curve(path: str | Path, event: str, key: str) -> BinnedCurve:
    """The list named `key` of every `event` along the image clock; lists not as long as the last are left out."""
    newest = {
        entry["images_seen"]: entry[key]
        for entry in standing_events(path)
        if entry["event"] == event and isinstance(entry.get(key), list)
    }
    bins = len([*newest.values()][-1]) if newest else 0
    places = sorted(place for place, values in newest.items() if len(values) == bins)
    known = [
        [np.nan if (value := number(item)) is None else value for item in newest[place]] for place in places
    ]
    return BinnedCurve(
        np.array(places, dtype=np.int64), np.array(known, dtype=np.float64).reshape(len(places), bins)
    )


def replay(path: str | Path, tracker: Tracker) -> int:
    """Tells a tracker everything that stands in the log, so that any view can be rebuilt; how many events."""
    events = standing_events(path)
    for event in events:
        values = {key: value for key, value in event.items() if key not in ("time", "event", "images_seen")}
        tracker.record(event["event"], event["images_seen"], **values)
    return len(events)
