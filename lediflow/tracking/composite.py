"""Several listeners as one: the event log, which must not fail, and views of it, which may.

A run is worth more than its dashboard. A view that raises is named in the log and left out from then on;
`jsonl.replay` can rebuild it from the events.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from lediflow.tracking.protocol import Tracker

log = logging.getLogger(__name__)


class CompositeTracker:
    """Tells the truth first, then whoever else wants to know."""

    def __init__(self, truth: Tracker, views: list[Tracker]):
        self.truth = truth
        self.views = list(views)

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        self.truth.record(event, images_seen, **values)
        self.tell_views(lambda view: view.record(event, images_seen, **values))

    def close(self) -> None:
        self.tell_views(lambda view: view.close())
        self.truth.close()

    def tell_views(self, tell: Callable[[Tracker], None]) -> None:
        """Each view hears it; one that raises hears nothing more."""
        for view in list(self.views):
            try:
                tell(view)
            except Exception as error:
                with contextlib.suppress(ValueError):  # another thread was told the same
                    self.views.remove(view)
                log.warning("%s stopped listening (%s); the event log goes on", type(view).__name__, error)
