"""When a run saves, and what happens to a save that fails.

All ranks begin a save at the same step boundary; it goes on in threads, and its outcome is known at a later boundary.
A save that fails (a full disk, a rank that cannot write) leaves the checkpoint before it untouched; rank 0 votes for
another try, and all ranks begin it at the same step.
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

RETRY_SECONDS = 30.0  # pause after the first failure; doubled after each further one
LONGEST_RETRY_SECONDS = 1800.0
LAST_TRIES, LAST_PAUSE_SECONDS = 5, 10.0  # at the end of the run, where no later step can try again
LEAVING_SECONDS = 30.0  # how long a run that ends in an error waits for a save under way


@dataclass
class PendingSave:
    """A save that is under way."""

    images_seen: int
    waited_seconds: float  # training stood still for the copy, and for a save before it


class Saving:
    """The saves of one run. Every rank calls the same methods at the same steps."""

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
        self.observe = observe  # is called with the duration of each save
        self.clock, self.sleep = clock, sleep
        self.pending: PendingSave | None = None
        # images seen at the newest whole checkpoint; known on rank 0 only
        self.last_saved: int | None = None
        self.pause = RETRY_SECONDS
        self.retry_at: float | None = None
        self.is_wanted = False
        self.failure = ""

    def is_time(self, wanted: bool) -> bool:
        """Whether a save was wanted at this step or before, and not begun since."""
        self.is_wanted |= wanted
        return self.is_wanted

    @property
    def failed_save(self) -> int:
        """This rank's vote: the number of the save whose slice it could not write; 0: none."""
        return self.writer.number if self.writer.error is not None else 0

    @property
    def wants_retry(self) -> bool:
        """Rank 0's vote: it is time to try a failed save again."""
        return self.retry_at is not None and self.clock() >= self.retry_at

    def begin(self, images_seen: int, progress: dict[str, Any]) -> None:
        """Copy the state and let threads write it, after waiting for a save still under way."""
        started = self.clock()
        self.settle()
        state = self.engine.state()
        self.retry_at, self.is_wanted = None, False
        self.writer.begin(images_seen, state, progress)
        self.pending = PendingSave(images_seen, self.clock() - started)

    def learn_outcome(self, failed_save: int) -> None:
        """At the end of a step: learn how the save under way ended, if it did.

        `failed_save` is the agreed vote; one about an earlier save is ignored.
        """
        a_rank_failed = 0 < failed_save == self.writer.number
        if self.engine.ranks.is_first:
            if a_rank_failed:
                self.writer.abandon()
            self._conclude(self.writer.poll())
        elif a_rank_failed:
            self.writer.poll()  # this rank's part is over, too

    def settle(self) -> bool:
        """Wait until the save under way has ended on every rank; whether it succeeded. Every rank must call it."""
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
        """Save the end of the run, unless that is saved already; UserError if it cannot be saved."""
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
            f"({failure}); {standing}. Correct that, then repeat the command"
        )

    def leave(self) -> None:
        """After an error: wait for this rank's part of a save under way, LEAVING_SECONDS at most."""
        if self.writer.thread is not None:
            self.writer.thread.join(LEAVING_SECONDS)

    def _describe_last_saved(self) -> str:
        saved = self.engine.group.broadcast(self.last_saved)
        return (
            "there is no valid checkpoint"
            if saved is None
            else f"the last valid checkpoint is at {saved} images"
        )

    def _conclude(self, outcome: Saved | Failed | None) -> None:
        if outcome is None or self.pending is None:
            return
        pending, self.pending = self.pending, None
        if isinstance(outcome, Saved):
            self.last_saved, self.pause = pending.images_seen, RETRY_SECONDS
            self.observe("save", outcome.seconds + pending.waited_seconds)
            self.tracker.record(
                "checkpoint",
                pending.images_seen,
                seconds=outcome.seconds,
                waited_seconds=pending.waited_seconds,
            )
            return
        log.error(
            "NOT SAVED at %d images: %s. Training continues, the previous checkpoint is kept; next attempt in %.0f s "
            "at the latest",
            pending.images_seen,
            outcome.reason,
            self.pause,
        )
        self.failure = outcome.reason
        self.tracker.record("checkpoint_failed", pending.images_seen, reason=str(outcome.reason))
        self.retry_at = self.clock() + self.pause
        self.pause = min(2 * self.pause, LONGEST_RETRY_SECONDS)
