"""A view in a thread of its own, so that training never waits for it: not for its start, nor for a slow disk."""

from __future__ import annotations

import logging
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from lediflow.tracking.event_log import plain

log = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0  # how long the end of a run waits for events that the view has not shown yet


class View(Protocol):
    """The part of a tracker that runs in the thread."""

    def record(self, event: str, images_seen: int, **values: Any) -> None: ...

    def close(self) -> None: ...


class BackgroundView:
    """Hands events to a view in another thread, in order. Thread-safe.

    An error of the view is raised by the next event, in the thread that records it; events after it are dropped.
    """

    def __init__(self, view: View, close_seconds: float = CLOSE_SECONDS) -> None:
        self.view, self.close_seconds = view, close_seconds
        self.waiting: SimpleQueue[tuple[str, int, dict[str, Any]] | None] = SimpleQueue()
        self.error: Exception | None = None
        self.thread = Thread(target=self._run, name=type(view).__name__, daemon=True)
        self.thread.start()

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        """Queue an event; its values are made plain here, since tensors may change later."""
        self._raise_error()
        self.waiting.put((event, images_seen, plain(values)))

    def close(self) -> None:
        """Wait until all events are shown, at most `close_seconds`."""
        self.waiting.put(None)
        self.thread.join(self.close_seconds)
        if self.thread.is_alive():
            log.warning("%s has not shown the last events; the event log has them", self.thread.name)
        self._raise_error()

    def _raise_error(self) -> None:
        if self.error is not None:
            raise RuntimeError(f"{self.thread.name}: {self.error}") from self.error

    def _run(self) -> None:
        try:
            while (entry := self.waiting.get()) is not None:
                event, images_seen, values = entry
                self.view.record(event, images_seen, **values)
            self.view.close()
        except Exception as error:
            self.error = error
