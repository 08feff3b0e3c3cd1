"""A listener for as long as the run folder is ours: what a start that lost its lease would log is another's past."""

from collections.abc import Callable
from typing import Any

from lediflow.tracking.protocol import Tracker


class FencedTracker:
    """Forgets what happens while `holds()` is false."""

    def __init__(self, tracker: Tracker, holds: Callable[[], bool]):
        self.tracker, self.holds = tracker, holds

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        if self.holds():
            self.tracker.record(event, images_seen, **values)

    def close(self) -> None:
        self.tracker.close()
