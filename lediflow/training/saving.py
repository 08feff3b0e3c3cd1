"""When to save, what becomes of a save that fails, and how long training waited for it.

A save is begun by all ranks at one step boundary and goes on in threads. Its end is heard of at a later boundary. One
that fails (a full disk, a rank that cannot write) leaves the checkpoint before it as it was; the first rank asks for
another try, by a vote that all ranks hear at the same step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lediflow.engine.checkpoints import CheckpointWriter, Failed, Saved
from lediflow.engine.protocol import Engine
from lediflow.errors import UserError
from lediflow.tracking.tracker import Tracker

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0  # at first; doubled after each failure
LONGEST_RETRY_SECONDS = 1800.0
LAST_TRIES, LAST_PAUSE_SECONDS = 5, 10.0  # at the end there is no later boundary to try again
LEAVING_SECONDS = 30.0  # that a run which ends in an error waits for a save under way


@dataclass
class Attempt:
    """A save that is under way."""

    images_seen: int
    waited_seconds: float  # that training stood still


class Saving:
    """One run's saves. Every rank calls the same methods at the same steps."""

    def __init__(
        self,
        writer: CheckpointWriter,
        engine: Engine,
        tracker: Tracker,
        observe: Callable[[str, float], None] = lambda kind, seconds: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.writer, self.engine, self.tracker = writer, engine, tracker
        self.observe = observe  # hears how long a whole save took
        self.clock, self.sleep = clock, sleep
        self.attempt: Attempt | None = None
        self.last_saved: int | None = (
            None  # images seen at the newest whole checkpoint; the first rank's knowledge
        )
        self.pause = RETRY_SECONDS
        self.retry_at: float | None = None
        self.is_wanted = False
        self.failure = ""

    def is_time(self, wanted: bool) -> bool:
        """Whether a save was wanted at this boundary or at one before, and not begun since."""
        self.is_wanted |= wanted
        return self.is_wanted

    @property
    def failed_save(self) -> int:
        """This rank's vote: the number of the save of which its part could not be written; 0: none."""
        return self.writer.number if self.writer.slice_error() is not None else 0

    @property
    def wants_retry(self) -> bool:
        """The first rank's vote: time to try again what failed."""
        return self.retry_at is not None and self.clock() >= self.retry_at

    def begin(self, images_seen: int, progress: dict[str, Any]) -> None:
        """Copy the state and let threads write it; a save still under way is waited for."""
        started = self.clock()
        self.settle()
        state = self.engine.state()
        self.retry_at, self.is_wanted = None, False
        self.writer.begin(images_seen, state, progress)
        self.attempt = Attempt(images_seen, self.clock() - started)

    def learn_outcome(self, failed_save: int) -> None:
        """At a step boundary: learn how the save under way ended, if it did. Votes on earlier ones are stale."""
        somebody_failed = 0 < failed_save == self.writer.number
        if self.engine.ranks.is_first:
            if somebody_failed:
                self.writer.abandon()
            self._conclude(self.writer.poll())
        elif somebody_failed:
            self.writer.poll()  # this rank's own part is over, too

    def settle(self) -> bool:
        """Wait until the save under way has ended on every rank; whether the newest one stands. Collective."""
        failed = self.writer.wait_slice() is not None
        failed = bool(self.engine.group.agree_now([int(failed)])[0])
        if self.engine.ranks.is_first:
            if failed:
                self.writer.abandon()
            self._conclude(self.writer.wait_commit())
        else:
            self.writer.poll()
        return self.engine.group.broadcast(self.retry_at is None)

    def finish(self, images_seen: int, progress: dict[str, Any]) -> None:
        """Save where the run ends, unless that is saved; UserError if it cannot be."""
        if self.settle() and self.engine.group.broadcast(self.last_saved == images_seen):
            return
        for is_last in [False] * (LAST_TRIES - 1) + [True]:
            self.begin(images_seen, progress)
            if self.settle():
                return
            if not is_last:
                self.sleep(LAST_PAUSE_SECONDS)
        failure, standing = self.engine.group.broadcast(self.failure), self._describe_last_saved()
        raise UserError(
            f"the state at {images_seen} images could not be saved in {LAST_TRIES} tries "
            f"({failure}); {standing}. Mend that, then repeat the command"
        )

    def leave(self) -> None:
        """Where a run ends in an error: let this rank's part of a save under way come to its end."""
        if self.writer.thread is not None:
            self.writer.thread.join(LEAVING_SECONDS)

    def _describe_last_saved(self) -> str:
        saved = self.engine.group.broadcast(self.last_saved)
        return (
            "no whole checkpoint is there"
            if saved is None
            else f"the last whole checkpoint is at {saved} images"
        )

    def _conclude(self, outcome: Saved | Failed | None) -> None:
        if outcome is None or self.attempt is None:
            return
        attempt, self.attempt = self.attempt, None
        if isinstance(outcome, Saved):
            self.last_saved, self.pause = attempt.images_seen, RETRY_SECONDS
            self.observe("save", outcome.seconds + attempt.waited_seconds)
            self.tracker.record(
                "checkpoint",
                attempt.images_seen,
                seconds=outcome.seconds,
                waited_seconds=attempt.waited_seconds,
            )
            return
        log.error(
            "NOT SAVED at %d images: %s. Training goes on, the checkpoint before stays; next try in %.0f s",
            attempt.images_seen,
            outcome.reason,
            self.pause,
        )
        self.failure = outcome.reason
        self.tracker.record("checkpoint_failed", attempt.images_seen, reason=str(outcome.reason))
        self.retry_at = self.clock() + self.pause
        self.pause = min(2 * self.pause, LONGEST_RETRY_SECONDS)
