"""Goodput: the share of the time in which a run held machines that went into training its present weights.

    goodput = seconds of training that the weights contain / seconds held

An image counts once, with the time that its training took, if the weights have learned from it. Training that was lost
in a crash counts as time held only, as do startup, compilation, validation, and waiting for a lost machine. The time
held is what SLURM accounts, else the time between the supervisor's records, or between the events of a run without a
job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from lediflow.cluster.slurm import Accounted
from lediflow.tracking.event_log import BEGINNINGS, RESUME, Event, number

HOUR = 3600


class Stretch(NamedTuple):
    """Range of images that were trained at one speed."""

    start: int
    end: int
    images_per_second: float

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / self.images_per_second

    def until(self, place: int) -> Stretch:
        """The part before image number `place`."""
        return self._replace(start=min(self.start, place), end=min(self.end, place))


class TrainingTime(NamedTuple):
    """Seconds of training in a whole log."""

    standing: float  # contained in the weights
    withdrawn: float  # lost, and done again


class HeldTime(NamedTuple):
    """Time in which machines were held, summed over all attempts."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: tuple[Any, ...]) -> HeldTime:
        return HeldTime(self.seconds + other[0], self.gpu_seconds + other[1])

    @property
    def gpu_hours(self) -> float:
        return self.gpu_seconds / HOUR


def training_time(events: Sequence[Event]) -> TrainingTime:
    """Training time of a whole event log. Images outside of any logged window count at the run's mean speed."""
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
    """Mean over all logged windows; 0 without any."""
    speeds = [number(event.get("images_per_second")) for event in events if event["event"] == "train"]
    known = [1 / speed for speed in speeds if speed]
    return sum(known) / len(known) if known else 0.0


def held_by_accounts(accounts: Sequence[Accounted], gpus: int) -> HeldTime:
    """Time by SLURM's accounting; `gpus` is the job's number of GPUs, for clusters that do not account them."""
    return sum(
        (HeldTime(attempt.seconds, attempt.seconds * (attempt.gpus or gpus)) for attempt in accounts),
        HeldTime(),
    )


def held_by_notes(attempts: Sequence[dict[str, Any]], signs: Sequence[float]) -> HeldTime:
    """Time by the supervisor's records; a lost attempt held its machines until the run's last sign of life.

    `signs` are times in seconds since the epoch: those of events, and the present one if the job is running.
    """
    ends = {attempt_key(entry): moment(entry) for entry in attempts if entry["event"] == "end"}
    starts = [entry for entry in attempts if entry["event"] == "start"]
    held = HeldTime()
    for place, start in enumerate(starts):
        begin = moment(start)
        later = [moment(entry) for entry in starts[place + 1 :] if entry["array_task"] == start["array_task"]]
        lived = [sign for sign in signs if begin <= sign < min(later, default=float("inf"))]
        seconds = ends.get(attempt_key(start), max(lived, default=begin)) - begin
        held += HeldTime(seconds, seconds * start["gpus"])
    return held


def held_by_events(events: Sequence[Event], now: float | None = None) -> HeldTime:
    """Time of a run without a job: from the first event of each session to its last, or to `now` while it runs."""
    starts = [place for place, event in enumerate(events) if begins_session(event)]
    seconds = 0.0
    for begin, end in pairwise([*starts, len(events)]):
        is_last = end == len(events)
        seconds += (now if now and is_last else moment(events[end - 1])) - moment(events[begin])
    return HeldTime(seconds)


def begins_session(event: Event) -> bool:
    """Whether the event is the first of a session; a run may also resume from a checkpoint within a session."""
    return event["event"] == "start" or (event["event"] == RESUME and event.get("why", "start") == "start")


def attempt_key(entry: dict[str, Any]) -> tuple[str, int]:
    """SLURM id and restart, which together name an attempt."""
    return entry["job"], entry["restart"]


def moment(entry: dict[str, Any]) -> float:
    """Time of an entry of a log, in seconds since the epoch."""
    return datetime.fromisoformat(entry["time"]).timestamp()


def moments(entries: Sequence[dict[str, Any]]) -> Iterator[float]:
    return map(moment, entries)
