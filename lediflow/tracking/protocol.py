"""What the training loop expects of whoever listens to it.

An event is a name, the place on the image clock where it happened, and named values. Nothing else is ever
tracked: curves, progress and dashboards are all made from events.
"""

from typing import Any, Protocol


class Tracker(Protocol):
    """Listens to a run. Values are numbers, strings, booleans, None, or lists and dicts of these."""

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        """Takes note of one event; a 0-d tensor counts as a number."""

    def close(self) -> None:
        """Finishes whatever is still being written. Nothing is recorded afterwards."""


class SilentTracker:
    """Listens and says nothing: what every rank but the first is given."""

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        """Forgets."""

    def close(self) -> None:
        """Has nothing to finish."""
