"""When to stop so that the last save ends before the job is killed.

A request to stop is answered one step after it was made (ranks agree while the next step computes). A rank that keeps
silent now can ask one step later, is answered one step after that, and then saves. So it must ask as soon as

    now + 2 step + save + others + margin > end,

each with the longest duration seen lately: an end that is missed costs everything since the last checkpoint, a stop
that is a little early costs seconds. `others` are what the loop does now and then between two steps (validation).
All times are seconds of `clock`, by default since the epoch.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lediflow.ranges import bounded

log = logging.getLogger(__name__)

STEPS_UNTIL_ANSWERED = 2
SEEN_LATELY = 256  # durations of each kind; slower ones before them are forgotten
LARGEST_SHARE = 0.05  # of the time that was given: neither margin nor guess takes more


@dataclass(kw_only=True)
class StopConfig:
    wall_minutes: float | None = bounded(
        None, above=0
    )  # stop, saved, this long after the start; null: SLURM's limit, if any
    margin_seconds: float = bounded(
        60.0, at_least=0
    )  # between the end of the last save and the wall time, at most 5 % of it
    save_seconds: float = bounded(
        60.0, at_least=0
    )  # a save is taken to last this long until one was measured, at most 5 %


class Deadline:
    """`observe` what lasted how long, then `is_near` says when to ask for a stop."""

    def __init__(self, end: float, config: StopConfig, clock: Callable[[], float] = time.time) -> None:
        self.end = end
        self.clock = clock
        largest = max(0.0, LARGEST_SHARE * (end - clock()))
        self.margin = min(config.margin_seconds, largest)
        self.seen: dict[str, deque[float]] = {}
        self.longest = {"step": 0.0, "save": min(config.save_seconds, largest)}
        self.is_compiled = False
        self.stop_at = self._latest_stop()

    def observe(self, kind: str, seconds: float) -> None:
        """A `step` (from vote to vote), a `save` (to its last byte), or what else stands between steps, by name.

        The first step compiles: it is forgotten at the second.
        """
        if kind == "step" and not self.is_compiled:
            self.is_compiled = True
            self.longest[kind] = seconds
        else:
            seen = self.seen.setdefault(kind, deque(maxlen=SEEN_LATELY))
            seen.append(seconds)
            self.longest[kind] = max(seen)
        self.stop_at = self._latest_stop()

    @property
    def is_near(self) -> bool:
        """Whether to ask for a stop now."""
        return self.clock() >= self.stop_at

    @property
    def is_save_worthwhile(self) -> bool:
        """Whether a save that begins now ends before the last one begins; that one would wait for it otherwise."""
        return self.clock() + self.longest["save"] <= self.stop_at

    def _latest_stop(self) -> float:
        steps = STEPS_UNTIL_ANSWERED * self.longest["step"]
        return self.end - self.margin - steps - sum(s for kind, s in self.longest.items() if kind != "step")


def find_deadline(
    config: StopConfig, env: Mapping[str, str], started: float, clock: Callable[[], float] = time.time
) -> Deadline | None:
    """The earlier of SLURM's end of the job and `wall_minutes` after `started`, if there is one."""
    ends = _slurm_end(env)
    if config.wall_minutes is not None:
        ends.append(started + 60 * config.wall_minutes)
    return Deadline(min(ends), config, clock) if ends else None


def _slurm_end(env: Mapping[str, str]) -> list[float]:
    if (found := env.get("SLURM_JOB_END_TIME")) is None:
        return []
    try:
        return [float(found)]
    except ValueError:
        log.warning("SLURM_JOB_END_TIME=%s is no time; set stop.wall_minutes to stop before the limit", found)
        return []
