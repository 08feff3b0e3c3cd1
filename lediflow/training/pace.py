"""How long each rank's steps take and why: the event `ranks`, and a warning that names a slow rank."""

from __future__ import annotations

import logging
from collections import Counter

from lediflow.engine.protocol import Engine
from lediflow.engine.timings import Slow, Timings, seconds_by_rank, stragglers
from lediflow.tracking.tracker import Tracker

log = logging.getLogger(__name__)

RECORDS_UNTIL_WARNING = 3  # in a row; a rank that is slow once may have a reason


class Pace:
    """The timings of a run, gathered once in a while."""

    def __init__(self, engine: Engine, tracker: Tracker) -> None:
        self.engine, self.tracker = engine, tracker
        self.timings = Timings(engine.device)
        self.slow: Counter[tuple[int, str]] = Counter()  # records in a row, by rank and reason
        engine.time_communication(self.timings.communication)

    def end_step(self) -> float:
        """End a step; its duration in seconds."""
        self.timings.end_step()
        return self.timings.steps[-1]["step"]

    def record(self, images_seen: int) -> None:
        """Record the quantiles of every rank since the last record, in seconds. Every rank must call it."""
        if not self.timings.steps:
            return
        found = seconds_by_rank(self.engine.group.stack(self.timings.row()))
        self.tracker.record("ranks", images_seen, **found)
        if self.engine.ranks.is_first:
            self._warn(images_seen, stragglers(found))

    def _warn(self, images_seen: int, found: list[Slow]) -> None:
        """Log each slow rank once, when it has been slow for RECORDS_UNTIL_WARNING records."""
        self.slow = Counter({(one.rank, one.words): self.slow[one.rank, one.words] + 1 for one in found})
        lasting = [one for one in found if self.slow[one.rank, one.words] == RECORDS_UNTIL_WARNING]
        if lasting:
            log.warning("at %d images: %s", images_seen, "; ".join(map(str, lasting)))
