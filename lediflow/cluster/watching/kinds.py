"""What a job or a run is at, in one word and in a sentence; and that of runs which no job of ours trains."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lediflow.cluster.watching.run_facts import RunFacts
from lediflow.tracking.progress import duration


class Kind(enum.StrEnum):
    """What to do about it depends on this. In the order in which the tasks of an array speak for all."""

    RUNNING = "running"
    PENDING = "pending"  # in the queue, or about to be
    UNKNOWN = "unknown"
    FAILED = "failed"  # will not go on by itself
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # by a person, saved
    DONE = "done"

    @property
    def is_open(self) -> bool:
        """Whether it may still end well by itself."""
        return self in (Kind.RUNNING, Kind.PENDING, Kind.UNKNOWN)

    @property
    def is_broken(self) -> bool:
        return self in (Kind.FAILED, Kind.CANCELLED, Kind.STOPPED)


@dataclass(frozen=True)
class State:
    kind: Kind
    words: str


def array_state(tasks: Mapping[int, State]) -> State:
    """Of an array as a whole: how many tasks are at what, and what the first one that failed says."""
    counts = Counter(state.kind for state in tasks.values())
    if len(counts) == 1 and Kind.DONE in counts:
        return State(Kind.DONE, f"done, {len(tasks)} tasks")
    told = [f"{counts[kind]} {kind}" for kind in reversed(Kind) if counts[kind]]
    words = f"tasks: {', '.join(told)}"
    failed = [number for number, state in tasks.items() if state.kind is Kind.FAILED]
    if failed:
        words += f"; task {failed[0]} {tasks[failed[0]].words}"
    return State(next(kind for kind in Kind if counts[kind]), words)


def with_remark(state: State, run: RunFacts) -> State:
    """The state, followed by the training's remark if there is one."""
    return State(state.kind, "; ".join(filter(None, (state.words, run.remark))))


def run_state(run: RunFacts) -> State:
    """Of a run that was started by hand, in a terminal or by a script of one's own."""
    return with_remark(state_by_hand(run), run)


def state_by_hand(run: RunFacts) -> State:
    lease, on = run.lease, "the same command goes on"
    if run.is_alive and lease is not None:
        return State(Kind.RUNNING, f"running, {lease.holder}")
    if run.is_done:
        return State(Kind.DONE, run.done)
    if run.failure:
        return State(Kind.FAILED, f"failed: {run.failure}; {on}")
    if lease is None:
        return State(Kind.STOPPED, f"not finished; {on}")
    if lease.is_given_back:
        return State(Kind.STOPPED, f"stopped; {on}")
    quiet = f"no sign of life for {duration(run.quiet_seconds)}"
    return State(Kind.FAILED, f"lost: {quiet}, last from {lease.holder}; {on}")
