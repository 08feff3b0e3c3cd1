"""Progress of a task: a bar on a terminal (rich), a line every few seconds everywhere else.

In a log file each line can be understood by itself:

    training: 40,960 of 1,000,000 images (4%), 812 images/s, 20 min left, loss 0.412

Rates count from the first update, so that a resumed run does not include work of an earlier process.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from lediflow.text import Rate
from lediflow.tracking.event_log import number, plain

WITHOUT_CONTROL = ("", "dumb", "unknown")  # values of TERM where a cursor cannot be moved
LINE_SECONDS = 10.0  # between two lines of progress in a log file; a bar on a terminal ignores it
SHOWN = {("train", "loss"): "loss", ("validation", "loss"): "held-out loss"}  # (event, key): label


class Progress(Protocol):
    """Shows how much of a known total is done."""

    def update(self, done: int, note: str = "") -> None:
        """`done` units of the total are done; `note` is shown after the numbers."""

    def close(self) -> None:
        """Show the last state once and stop; later updates are ignored."""


class LineProgress:
    """A line every few seconds, and a last one on `close`: updates after the total may still change the note."""

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        stream: TextIO,
        every_seconds: float = LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.title, self.total, self.rate = title, total, Rate(total, unit)
        self.stream, self.every_seconds, self.clock = stream, every_seconds, clock
        self.last_line_at = -float("inf")
        # time when the total was reached, units done, newest note
        self.finished: tuple[float, int, str] | None = None
        self.is_closed = False

    def update(self, done: int, note: str = "") -> None:
        if self.is_closed:
            return
        now = self.clock()
        self.rate.phrases(now, done)
        if done >= self.total:
            self.finished = (self.finished[0] if self.finished else now, done, note)
        elif now - self.last_line_at >= self.every_seconds:
            self.last_line_at = now
            self.write(now, done, note)

    def write(self, now: float, done: int, note: str) -> None:
        """Print the line of time `now`."""
        share = f" ({done / self.total:.0%})" if self.total else ""
        parts = [f"{self.title}: {self.rate.amount(done)}{share}", *self.rate.phrases(now, done), note]
        print(", ".join(part for part in parts if part), file=self.stream, flush=True)

    def close(self) -> None:
        """Print the last line of finished work; unfinished work has no last line."""
        if self.finished and not self.is_closed:
            self.write(*self.finished)
        self.is_closed = True


class ProgressTracker:
    """Shows the progress of a run from its events, with the newest losses as a note."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.notes: dict[str, str] = {}  # newest value of each label

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        for key, value in values.items():
            known = number(plain(value)) if (event, key) in SHOWN else None
            if known is not None:
                self.notes[SHOWN[event, key]] = f"{SHOWN[event, key]} {known:.4g}"
        self.progress.update(images_seen, ", ".join(self.notes.values()))

    def close(self) -> None:
        self.progress.close()


def make_progress(
    title: str,
    total: int,
    *,
    unit: str = "images",
    stream: TextIO | None = None,
    every_seconds: float = LINE_SECONDS,
) -> Progress:
    """A bar if `stream` (default: stderr) is a terminal whose cursor can be moved, lines otherwise."""
    stream = stream or sys.stderr
    if is_interactive(stream):
        # here, because importing rich takes longer than some commands
        from lediflow.tracking.bar import BarProgress

        return BarProgress(title, Rate(total, unit), stream)
    return LineProgress(title, total, unit, stream, every_seconds)


def is_interactive(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which something can be drawn again in place."""
    return stream.isatty() and os.environ.get("TERM", "") not in WITHOUT_CONTROL


def progress_callback(title: str, *, unit: str = "images") -> Callable[[int, int], None]:
    """A function `report(done, total)` for work whose total is known only once it has started."""
    shown: list[Progress] = []

    def report(done: int, total: int) -> None:
        if not shown:
            shown.append(make_progress(title, total, unit=unit))
        shown[0].update(done)
        if done >= total:
            shown[0].close()

    return report
