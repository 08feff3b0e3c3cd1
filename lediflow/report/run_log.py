"""The event log of a run, read in one pass: its numbers as columns, and the history of its sessions.

A log may have a million events, so that nothing is kept of one but its numbers. Only numbers that stand are kept (see
`tracking.event_log`): a start or resume discards what was logged beyond its place, and of two values at a place the
newest counts.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lediflow.report.timeline import PICTURES, History
from lediflow.tracking.event_log import BEGINNINGS, Curve, Event, number, numbers, parse_event

NOT_VALUES = ("time", "event", "images_seen")
WITHOUT_CURVES = ("ranks",)  # a number for each rank and quantile: W&B and TensorBoard show them


class BinnedCurve(NamedTuple):
    """A value per bin along the image clock, in order; NaN where a bin was empty."""

    images_seen: Int[np.ndarray, " points"]
    values: Float[np.ndarray, "points bins"]


class Column:
    """One logged number or list of numbers along the image clock, in the order written."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.places, self.values = array("q"), array("d")

    def append(self, place: int, values: Iterable[float]) -> None:
        self.places.append(place)
        self.values.extend(values)

    def discard_beyond(self, place: int) -> None:
        """Remove what was logged after `place`."""
        if not self.places or (self.places[-1] <= place and self.is_ascending):
            return
        if self.is_ascending:
            kept = bisect_right(self.places, place)
            del self.places[kept:], self.values[kept * self.width :]
            return
        rows = np.frombuffer(self.values, dtype=np.float64).reshape(-1, self.width)
        known = np.frombuffer(self.places, dtype=np.int64)
        rows, known = rows[known <= place], known[known <= place]
        self.places, self.values = array("q", known.tolist()), array("d", rows.ravel().tolist())

    @property
    def is_ascending(self) -> bool:
        """Whether places never fall; evaluations that came late may lie before others."""
        known = np.frombuffer(self.places, dtype=np.int64)
        return bool(np.all(known[1:] >= known[:-1]))

    @property
    def curve(self) -> BinnedCurve:
        """The points by place, the newest of each place; every point has `width` values."""
        places = np.array(self.places, dtype=np.int64)
        rows = np.array(self.values, dtype=np.float64).reshape(len(places), self.width)
        order = np.argsort(places, kind="stable")
        places, rows = places[order], rows[order]
        is_newest = np.append(places[1:] != places[:-1], True)[: len(places)]
        return BinnedCurve(places[is_newest], rows[is_newest])


@dataclass
class RunLog:
    """What a report needs of an event log."""

    numbers: dict[str, Column] = field(default_factory=dict)  # by `event/key`
    lists: dict[str, Column] = field(default_factory=dict)  # by `event/key`, all of one length
    pictures: list[Event] = field(default_factory=list)  # the events about pictures, whole
    history: History = field(default_factory=History)

    def curve(self, event: str, key: str) -> Curve:
        """The number under `key` of every event named `event`; without points if it was never logged."""
        column = self.numbers.get(f"{event}/{key}") or Column(1)
        found = column.curve
        return Curve(found.images_seen, found.values[:, 0])

    def binned_curve(self, event: str, key: str) -> BinnedCurve:
        """The list under `key` of every event named `event`; lists of another length than the last are left out."""
        column = self.lists.get(f"{event}/{key}") or Column(0)
        return column.curve

    def add(self, event: Event) -> None:
        """Add the next event of the log."""
        name, place = event["event"], event["images_seen"]
        if name in BEGINNINGS:
            for column in (*self.numbers.values(), *self.lists.values()):
                column.discard_beyond(place)
            self.pictures = [earlier for earlier in self.pictures if earlier["images_seen"] <= place]
        self.history.add(event)
        if name == PICTURES:
            self.pictures.append(event)
        if name in WITHOUT_CURVES:
            return
        for key, value in event.items():
            if key in NOT_VALUES or isinstance(value, bool):
                continue
            if isinstance(value, list):
                self.add_list(f"{name}/{key}", place, value)
            elif type(value) is float:
                self.add_number(f"{name}/{key}", place, value)
            else:
                for full_name, known in numbers(f"{name}/{key}", value):
                    self.add_number(full_name, place, known)

    def add_number(self, name: str, place: int, value: float) -> None:
        column = self.numbers.get(name)
        if column is None:
            column = self.numbers[name] = Column(1)
        column.places.append(place)
        column.values.append(value)

    def add_list(self, name: str, place: int, items: list[Any]) -> None:
        """Add a list of numbers, NaN where an item is not one; a list of another length replaces all before it."""
        known = [np.nan if (value := number(item)) is None else value for item in items]
        if name not in self.lists or self.lists[name].width != len(known):
            self.lists[name] = Column(len(known))
        self.lists[name].append(place, known)


def read_log(path: Path) -> RunLog:
    """Read the log; empty if there is none yet."""
    log = RunLog()
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if (event := parse_event(line)) is not None:
                    log.add(event)
    return log
