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
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

STEPS_UNTIL_ANSWERED = 2
SEEN_LATELY = 256  # durations of each kind; slower ones before them are forgotten
LARGEST_SHARE = 0.05  # of the time that was given: neither margin nor guess takes more


@dataclass(kw_only=True)
class StopConfig:
    wall_minutes: float | None = None  # stop, saved, this long after the start; null: SLURM's limit, if any
    margin_seconds: float = 60.0  # between the end of the last save and the wall time, at most 5 % of it
    save_seconds: float = 60.0  # a save is taken to last this long until one was measured, at most 5 %


class Deadline:
    """`observe` what lasted how long, then `is_near` says when to ask for a stop."""

    def __init__(self, end: float, config: StopConfig, clock: Callable[[], float] = time.time) -> None:
        self.end = end
        self.clock = clock
        largest = max(0.0, LARGEST_SHARE * (end - clock()))
        self.margin = min(config.margin_seconds, largest)
        self.guess = min(config.save_seconds, largest)
        self.seen: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=SEEN_LATELY))
        self.longest: dict[str, float] = {}
        self.is_first_step = True
        self.stop_at = end - self.margin - self.guess

    def observe(self, kind: str, seconds: float) -> None:
        """A `step` (from vote to vote, without what is named otherwise), a `save`, or anything else in the loop."""

    @property
    def is_near(self) -> bool:
        """Whether to ask for a stop now."""
        return self.clock() >= self.stop_at

    @property
    def is_save_worthwhile(self) -> bool:
        """Whether a save begun now ends before the last one must begin; else the last one makes it superfluous."""
        return True


def find_deadline(
    config: StopConfig, env: Mapping[str, str], started: float, clock: Callable[[], float] = time.time
) -> Deadline | None:
    """The earlier of SLURM's end of the job and `wall_minutes` after `started`, if there is one."""
    return None
