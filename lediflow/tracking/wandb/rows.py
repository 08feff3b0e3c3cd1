"""events.jsonl -> rows of a W&B history: every standing event once, at a step that never changes.

W&B drops a row whose step is not above the last one, and cannot take a row back. So:

- the step of an event is its number in the log, which is append-only; results of evaluations, which are files, take
  numbers of their own where they were first seen. The step is the same in every attempt to send it, and what a server
  has can be read from its last step.
- the x axis is `images_seen`: an evaluation of an old checkpoint appears at its place although its step is the newest.
- an event that a crash and a resume repeat is sent once. In a run that was not sent before, it is the one that stands;
  of one that was sent while it stood, W&B keeps the value that it has.

Besides the numbers of its event, a row has `elapsed_seconds`: the time trained so far over all attempts. Waiting in the
queue does not count, and a clock that is set back does not turn it back; `_timestamp`, too, never falls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from lediflow.tracking.event_log import PICTURES, RESUME, START, TURNED, Event, numbers, standing_places
from lediflow.tracking.tables import distinct_events, values_of
from lediflow.tracking.wandb.facts import Result
from lediflow.tracking.wandb.record import SentResult

ALERTS = {TURNED: "held-out loss has turned"}  # title of the alert that W&B sends for an event
NOT_TRAINING = ("evaluation",)  # events that other processes write into the log, at any later time


class Row(NamedTuple):
    """What W&B gets at one step."""

    step: int
    images_seen: int
    timestamp: float  # seconds since the epoch
    values: dict[str, float]
    pictures: Event | None = None  # the event that names them
    alert: tuple[str, str] | None = None  # title and text

    @property
    def is_empty(self) -> bool:
        return not (self.values or self.pictures or self.alert)


class Plan(NamedTuple):
    """The rows to send after a step, and what they leave out."""

    rows: list[Row]
    next_step: int  # of what comes later
    skipped: list[list[int]]  # all stretches of steps without a row, with earlier ones
    repeated: int  # standing events whose place was sent before, from an attempt that was discarded
    outdated: int  # places that were sent before and have no event, or another one, that stands


class Moment(NamedTuple):
    timestamp: float
    elapsed: float


def plan_rows(
    events: Sequence[Event],
    results: Sequence[tuple[SentResult, Result | None]],
    first_step: int = 0,
    skipped: Sequence[Sequence[int]] = (),
) -> Plan:
    """The rows from `first_step` on. `skipped` are stretches below it that were not sent.

    `results` are the files of results in the order in which they were first seen; None for one that is gone.
    """
    steps = event_steps(len(events), [sent.after for sent, _ in results])
    left_out = {step for first, last in skipped for step in range(first, min(last, first_step - 1) + 1)}
    sent = {
        place_of(event): index
        for index, (event, step) in enumerate(zip(events, steps, strict=True))
        if step < first_step and step not in left_out
    }
    newest = {place_of(events[index]): index for index in standing_places(events)}
    later = {place: index for place, index in newest.items() if steps[index] >= first_step}
    chosen = {index for place, index in later.items() if place not in sent}
    moments = timeline(events)
    rows = [
        row_of(event, steps[newest[place_of(event)]], moments[newest[place_of(event)]])
        for event in standing_rows(events)
        if newest[place_of(event)] in chosen
    ]
    now = moments[-1] if moments else Moment(0.0, 0.0)
    rows += [
        Row(sent.after + number, result.images_seen, now.timestamp, result.values)
        for number, (sent, result) in enumerate(results)
        if result is not None and sent.after + number >= first_step
    ]
    omitted = [step for index, step in enumerate(steps) if step >= first_step and index not in chosen]
    return Plan(
        rows=sorted((row for row in rows if not row.is_empty), key=lambda row: row.step),
        next_step=max(first_step, len(events) + len(results)),
        skipped=stretches(sorted(left_out | set(omitted))),
        repeated=len(later) - len(chosen),
        outdated=sum(newest.get(place) != index for place, index in sent.items()),
    )


def place_of(event: Event) -> tuple[str, int]:
    """The point of a curve that an event is; of two events at one place the newest counts."""
    return event["event"], event["images_seen"]


def event_steps(events: int, results_after: Sequence[int]) -> list[int]:
    """The step of each event: its index, moved by the files of results that were seen before it."""
    before = [0] * (events + 1)
    for after in results_after:
        before[min(after, events)] += 1
    steps, moved = [], 0
    for index in range(events):
        moved += before[index]
        steps.append(index + moved)
    return steps


def stretches(steps: Iterable[int]) -> list[list[int]]:
    """Ascending steps as a list of [first, last] of those that follow one another."""
    found: list[list[int]] = []
    for step in steps:
        if found and step == found[-1][1] + 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    return found


def standing_rows(events: Sequence[Event]) -> list[Event]:
    """The events that stand, one for each place."""
    return distinct_events(events[index] for index in standing_places(events))


def row_of(event: Event, step: int, moment: Moment) -> Row:
    """The row of one event; empty if it has nothing that W&B shows."""
    found = dict(numbers_of(event))
    title = ALERTS.get(event["event"])
    return Row(
        step=step,
        images_seen=event["images_seen"],
        timestamp=moment.timestamp,
        values=found | ({"elapsed_seconds": moment.elapsed} if found else {}),
        pictures=event if event["event"] == PICTURES else None,
        alert=(title, str(event.get("message", ""))) if title else None,
    )


def numbers_of(event: Event) -> Iterator[tuple[str, float]]:
    """The numbers of an event, by the names that views show."""
    return numbers(event["event"], {key: value for key, value in values_of(event).items() if key != PICTURES})


def timeline(events: Sequence[Event]) -> list[Moment]:
    """When each event happened, by a clock that never falls, and the seconds trained until then."""
    found: list[Moment] = []
    before, elapsed, newest = None, 0.0, -math.inf
    for event in events:
        time = datetime.fromisoformat(event["time"]).timestamp()
        newest = max(newest, time)
        if event["event"] not in NOT_TRAINING:
            is_new_attempt = event["event"] in (START, RESUME)
            elapsed += 0.0 if before is None or is_new_attempt else max(0.0, time - before)
            before = time
        found.append(Moment(newest, elapsed))
    return found


def summaries(events: Sequence[Event], results: Iterable[Result]) -> dict[str, Any]:
    """Minimum, maximum and last value of every number, over what stands; JSON has no NaN, so it is a text there.

    Minimum and maximum are those of the finite values.
    """
    curves: dict[str, list[float]] = {}
    standing = standing_rows(events)
    for event in standing:
        for name, value in numbers_of(event):
            curves.setdefault(name, []).append(value)
    for result in sorted(results, key=lambda result: result.images_seen):
        for name, value in result.values.items():
            curves.setdefault(name, []).append(value)
    found: dict[str, Any] = {name: summary(values) for name, values in curves.items()}
    if standing:
        found["images_seen"] = standing[-1]["images_seen"]
        found["elapsed_seconds"] = timeline(events)[-1].elapsed
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    finite = [value for value in values if math.isfinite(value)] or [math.nan]
    found = {"min": min(finite), "max": max(finite), "last": values[-1]}
    return {name: marked(value) for name, value in found.items()}


def marked(value: float) -> float | str:
    """The value, or its name if it is not finite."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
