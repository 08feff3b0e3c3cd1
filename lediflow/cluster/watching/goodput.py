"""What became of the time that a run held machines for.

    goodput = seconds of training that stands / seconds held

An image counts once, for as long as its training took, if the weights have learned from it; what a crash took back and
was trained again counts as held only, as do starting, compiling, validation, and the wait for a lost machine.
Held is what SLURM accounts, or the time between the notes of the supervisor, or of the events of a run without a job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from lediflow.cluster.slurm import Accounted
from lediflow.tracking.event_log import RESUME, Event, number

BEGINNINGS = ("start", RESUME)
HOUR = 3600


class Stretch(NamedTuple):
    """Images that were trained at one speed."""

    start: int
    end: int
    images_per_second: float

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / self.images_per_second

    def until(self, place: int) -> Stretch:
        return self._replace(start=min(self.start, place), end=min(self.end, place))


class TrainingTime(NamedTuple):
    standing: float  # seconds of training that the weights have
    withdrawn: float  # seconds of training that was lost and done again


class Held(NamedTuple):
    """All starts together."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: tuple[Any, ...]) -> Held:
        return Held(self.seconds + other[0], self.gpu_seconds + other[1])

    @property
    def gpu_hours(self) -> float:
        return self.gpu_seconds / HOUR


def training_time(events: Sequence[Event]) -> TrainingTime:
    """Of a whole log. Images saved before a window of theirs was logged count at the run's mean speed."""
    standing: list[Stretch] = []
    withdrawn: list[float] = []
    place = reached = 0
    for event in events:
        reached = event["images_seen"]
        if event["event"] in BEGINNINGS:
            kept = [stretch.until(reached) for stretch in standing]
            withdrawn.append(total_seconds(standing) - total_seconds(kept))
            standing, place = kept, reached
        elif event["event"] == "train" and (speed := number(event.get("images_per_second"))):
            standing.append(Stretch(place, reached, speed))
            place = reached
    unlogged = reached - sum(stretch.end - stretch.start for stretch in standing)
    return TrainingTime(total_seconds(standing) + unlogged * seconds_per_image(events), sum(withdrawn))


def total_seconds(stretches: Sequence[Stretch]) -> float:
    return sum(stretch.seconds for stretch in stretches)


def seconds_per_image(events: Sequence[Event]) -> float:
    """The mean of all windows."""
    speeds = [number(event.get("images_per_second")) for event in events if event["event"] == "train"]
    known = [1 / speed for speed in speeds if speed]
    return sum(known) / len(known) if known else 0.0


def held_by_accounts(accounts: Sequence[Accounted], gpus: int) -> Held:
    """`gpus` of the job, where SLURM does not account them."""
    return sum(
        (Held(start.seconds, start.seconds * (start.gpus or gpus)) for start in accounts if start.seconds),
        Held(),
    )


def held_by_notes(attempts: Sequence[dict[str, Any]], signs: Sequence[float]) -> Held:
    """By the supervisor's notes; a start that was lost held its machines until its run's last sign of life.

    `signs` are moments, in seconds since the epoch: the times of events, and now if the job runs.
    """
    ends = {incarnation(entry): moment(entry) for entry in attempts if entry["event"] == "end"}
    starts = [entry for entry in attempts if entry["event"] == "start"]
    held = Held()
    for place, start in enumerate(starts):
        begin = moment(start)
        later = [moment(entry) for entry in starts[place + 1 :] if entry["array_task"] == start["array_task"]]
        lived = [sign for sign in signs if begin <= sign < min(later, default=float("inf"))]
        seconds = ends.get(incarnation(start), max(lived, default=begin)) - begin
        held += Held(seconds, seconds * start["gpus"])
    return held


def held_by_events(events: Sequence[Event], now: float | None = None) -> Held:
    """Of a run without a job: from each start's first event to its last, or to `now` while it runs."""
    starts = [place for place, event in enumerate(events) if is_a_start(event)]
    seconds = 0.0
    for begin, end in pairwise([*starts, len(events)]):
        is_last = end == len(events)
        seconds += (now if now and is_last else moment(events[end - 1])) - moment(events[begin])
    return Held(seconds)


def is_a_start(event: Event) -> bool:
    """Of a process; a run may also go back to a checkpoint without one."""
    return event["event"] == "start" or (event["event"] == RESUME and event.get("why", "start") == "start")


def incarnation(entry: dict[str, Any]) -> tuple[str, int]:
    return entry["job"], entry["restart"]


def moment(entry: dict[str, Any]) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(entry["time"]).timestamp()


def moments(entries: Sequence[dict[str, Any]]) -> Iterator[float]:
    return map(moment, entries)
