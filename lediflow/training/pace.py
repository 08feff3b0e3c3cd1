"""How long each rank's steps take and why: the event `ranks`, and a warning that names a slow one."""

from __future__ import annotations

import logging

from lediflow.engine.protocol import Engine
from lediflow.engine.timings import Timings, stragglers, table
from lediflow.tracking.protocol import Tracker

log = logging.getLogger(__name__)


class Pace:
    """A run's timings, gathered from time to time."""

    def __init__(self, engine: Engine, tracker: Tracker) -> None:
        self.engine, self.tracker = engine, tracker
        self.timings = Timings(engine.device)
        engine.time_communication(self.timings.communication)

    def end_step(self) -> float:
        """One step is over; its seconds."""
        self.timings.end_step()
        return self.timings.steps[-1]["step"]

    def record(self, images_seen: int) -> None:
        """Tell every rank's quantiles since the last time, in seconds. Every rank must call it."""
        if not self.timings.steps:
            return
        found = table(self.engine.gather(self.timings.row()))
        self.tracker.record("ranks", images_seen, **found)
        if sentence := stragglers(found):
            log.warning("at %d images: %s", images_seen, sentence)
