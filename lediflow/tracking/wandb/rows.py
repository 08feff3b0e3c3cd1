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

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lediflow.tracking.event_log import PICTURES, RESUME, START, TURNED, Event, numbers, standing_indices
from lediflow.tracking.tables import values_of
from lediflow.tracking.wandb.facts import Result
from lediflow.tracking.wandb.log_index import IndexedLog, Place
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

    indices: list[int]  # of the events, ascending
    steps: list[int]  # theirs
    results: list[tuple[int, Result]]  # step, and numbers of a file
    next_step: int  # of what comes later
    skipped: list[list[int]]  # all stretches of steps without a row, with earlier ones
    repeated: int  # standing events whose place was sent before, from an attempt that was discarded
    outdated: int  # places that were sent before and have no event, or another one, that stands


class Moment(NamedTuple):
    timestamp: float
    elapsed: float


Results = Sequence[tuple[SentResult, Result | None]]


def plan_rows(
    log: IndexedLog, results: Results, first_step: int = 0, skipped: Sequence[Sequence[int]] = ()
) -> Plan:
    """What to send from `first_step` on. `skipped` are stretches of steps below it that were not sent.

    `results` are the files of results in the order in which they were first seen; None for one that is gone.
    """
    steps = event_steps(len(log), [sent.after for sent, _ in results])
    left_out = {step for first, last in skipped for step in range(first, min(last, first_step - 1) + 1)}
    sent = {
        log.place(index): index
        for index, step in enumerate(steps)
        if step < first_step and step not in left_out
    }
    newest = newest_standing(log)
    later = {place: index for place, index in newest.items() if steps[index] >= first_step}
    chosen = {index for place, index in later.items() if place not in sent}
    omitted = [step for index, step in enumerate(steps) if step >= first_step and index not in chosen]
    return Plan(
        indices=sorted(chosen),
        steps=[steps[index] for index in sorted(chosen)],
        results=[
            (sent_result.after + number, result)
            for number, (sent_result, result) in enumerate(results)
            if result is not None and sent_result.after + number >= first_step
        ],
        next_step=max(first_step, len(log) + len(results)),
        skipped=stretches(sorted(left_out | set(omitted))),
        repeated=len(later) - len(chosen),
        outdated=sum(newest.get(place) != index for place, index in sent.items()),
    )


def rows_of(log: IndexedLog, plan: Plan) -> Iterator[Row]:
    """The rows of a plan, in the order of their steps."""
    moments = timeline(log)
    from_events = (
        row_of(event, step, moments[index])
        for index, step, event in zip(plan.indices, plan.steps, log.events(plan.indices), strict=True)
    )
    now = moments[-1] if moments else Moment(0.0, 0.0)
    from_results = (
        Row(step, result.images_seen, now.timestamp, result.values) for step, result in plan.results
    )
    merged = heapq.merge(from_events, from_results, key=lambda row: row.step)
    return (row for row in merged if not row.is_empty)


def newest_standing(log: IndexedLog) -> dict[Place, int]:
    """Index of the newest event at each place that no resume has discarded."""
    places = map(log.place, range(len(log)))
    return {log.place(index): index for index in standing_indices(places)}


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


def timeline(log: IndexedLog) -> list[Moment]:
    """When each event happened, by a clock that never falls, and the seconds trained until then."""
    found: list[Moment] = []
    before, elapsed, newest = None, 0.0, -math.inf
    for index, time in enumerate(log.times):
        newest = max(newest, time)
        if log.name(index) not in NOT_TRAINING:
            is_new_attempt = log.name(index) in (START, RESUME)
            elapsed += 0.0 if before is None or is_new_attempt else max(0.0, time - before)
            before = time
        found.append(Moment(newest, elapsed))
    return found


class Extremes(NamedTuple):
    """The smallest and the largest finite value of a number, and its value at the last place."""

    low: float
    high: float
    last: float
    place: int


def summaries(log: IndexedLog, results: Iterable[Result]) -> dict[str, Any]:
    """Minimum, maximum and last value of every number, over what stands; JSON has no NaN, so it is a text there.

    Minimum and maximum are those of the finite values.
    """
    found: dict[str, Extremes] = {}
    newest = newest_standing(log)
    for event in log.events(sorted(newest.values())):
        for name, value in numbers_of(event):
            found[name] = joined(found.get(name), value, event["images_seen"])
    for result in results:
        for name, value in result.values.items():
            found[name] = joined(found.get(name), value, result.images_seen)
    shown: dict[str, Any] = {name: summary(extremes) for name, extremes in found.items()}
    if newest:
        shown["images_seen"] = max(images_seen for _, images_seen in newest)
        shown["elapsed_seconds"] = timeline(log)[-1].elapsed
    return shown


def joined(known: Extremes | None, value: float, place: int) -> Extremes:
    """What is known of a number, with one more value."""
    low, high, last, last_place = known or Extremes(math.inf, -math.inf, value, place)
    if math.isfinite(value):
        low, high = min(low, value), max(high, value)
    return Extremes(low, high, *((value, place) if place >= last_place else (last, last_place)))


def summary(extremes: Extremes) -> dict[str, Any]:
    """Minimum, maximum and last value; NaN where no value is finite."""
    is_known = extremes.low <= extremes.high
    low, high = (extremes.low, extremes.high) if is_known else (math.nan, math.nan)
    return {"min": marked(low), "max": marked(high), "last": marked(extremes.last)}


def marked(value: float) -> float | str:
    """The value, or its name if it is not finite."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
