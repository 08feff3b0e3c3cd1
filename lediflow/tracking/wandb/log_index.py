"""An event log of any length: where its events lie in the file, without their values.

A run of weeks has millions of events. Of each, 34 bytes are kept in memory; values are read again when they are needed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from lediflow.tracking.event_log import Event, parse_event

Place = tuple[str, int]  # name and images seen: the point of a curve that an event is


class IndexedLog:
    """The valid events of a log in the order written; `refresh` adds those that were appended.

    The log is append-only, so the index of an event never changes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []  # of all events that occur
        self.kinds = array("H")  # of each event: index into names
        self.places = array("q")  # images seen
        self.times = array("d")  # seconds since the epoch
        self.offsets = array("q")  # bytes
        self.end = 0  # bytes of the file that were read
        self.refresh()

    def __len__(self) -> int:
        return len(self.offsets)

    def refresh(self) -> None:
        """Read what was appended; a last line that is not whole yet is left for the next time."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self.end)
            for line in stream:
                event = parse_event(line.decode(errors="replace"))
                if event is None and not line.endswith(b"\n"):
                    return
                if event is not None:
                    self.add(event)
                self.end += len(line)

    def add(self, event: Event) -> None:
        if event["event"] not in self.names:
            self.names.append(event["event"])
        self.kinds.append(self.names.index(event["event"]))
        self.places.append(event["images_seen"])
        self.times.append(datetime.fromisoformat(event["time"]).timestamp())
        self.offsets.append(self.end)

    def name(self, index: int) -> str:
        return self.names[self.kinds[index]]

    def place(self, index: int) -> Place:
        return self.name(index), self.places[index]

    def events(self, indices: Iterable[int]) -> Iterator[Event]:
        """Whole events, read from the file in the order of `indices`."""
        with self.path.open("rb") as stream:
            for index in indices:
                stream.seek(self.offsets[index])
                event = parse_event(stream.readline().decode(errors="replace"))
                if event is None:
                    raise OSError(f"{self.path} has changed while it was read")
                yield event

    def named(self, *names: str) -> Iterator[Event]:
        """Whole events of these names."""
        kinds = {number for number, name in enumerate(self.names) if name in names}
        return self.events(index for index, kind in enumerate(self.kinds) if kind in kinds)

    def at(self, name: str, images_seen: int) -> Iterator[Event]:
        """Whole events of this name and place."""
        kinds = {number for number, known in enumerate(self.names) if known == name}
        places = zip(self.kinds, self.places, strict=True)
        return self.events(
            index for index, (kind, seen) in enumerate(places) if seen == images_seen and kind in kinds
        )


def first_event(path: Path) -> Event | None:
    """The first valid event of a log; None if it has none."""
    if not path.exists():
        return None
    with path.open(encoding="utf-8", errors="replace") as lines:
        return next((event for line in lines if (event := parse_event(line)) is not None), None)
