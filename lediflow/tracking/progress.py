"""Progress of a task: a bar on a terminal, a line every few seconds everywhere else.

In a log file each line can be understood by itself:

    training: 40,960 of 1,000,000 images (4%), 812 images/s, 20 min left, loss 0.412

Rates count from the first update, so that a resumed run does not include work of an earlier process.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lediflow.text import duration
from lediflow.tracking.event_log import number, plain

FALLBACK_COLUMNS = 80
LINE_SECONDS = 10.0  # between two lines of progress in a log file; a bar on a terminal ignores it
SHOWN = {("train", "loss"): "loss", ("validation", "loss"): "held-out loss"}  # (event, key): label


class Progress(Protocol):
    """Shows how much of a known total is done."""

    def update(self, done: int, note: str = "") -> None:
        """`done` units of the total are done; `note` is shown after the numbers."""

    def close(self) -> None:
        """Show the last state once and stop; later updates are ignored."""


class BarProgress:
    """A tqdm bar that appears at the first update (which may not be 0) and keeps its last state.

    While it is shown, log lines are written above it.
    """

    def __init__(self, title: str, total: int, unit: str, stream: TextIO):
        self.arguments: dict[str, Any] = {"desc": title, "total": total, "unit": f" {unit}", "file": stream}
        width = {"dynamic_ncols": True} if has_width(stream) else {"ncols": FALLBACK_COLUMNS}
        self.arguments |= width
        self.bar: Any = None
        self.is_closed = False
        self.shown = ExitStack()

    def update(self, done: int, note: str = "") -> None:
        if self.is_closed:
            return
        if self.bar is None:
            self.shown.enter_context(logging_redirect_tqdm())
            self.bar = tqdm(initial=done, unit_scale=True, **self.arguments)
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        self.is_closed = True
        if self.bar is not None:
            self.bar.close()
        self.shown.close()


def has_width(stream: TextIO) -> bool:
    """Whether the terminal reports its width; inside a container it may be 0, and tqdm then draws no bar."""
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        return False


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
        self.title, self.total, self.unit = title, total, unit
        self.stream, self.every_seconds, self.clock = stream, every_seconds, clock
        self.started: tuple[float, int] | None = None  # time of the first update, units done by then
        self.last_line_at = -float("inf")
        # time when the total was reached, units done, newest note
        self.finished: tuple[float, int, str] | None = None
        self.is_closed = False

    def update(self, done: int, note: str = "") -> None:
        if self.is_closed:
            return
        now = self.clock()
        self.started = self.started or (now, done)
        if done >= self.total:
            self.finished = (self.finished[0] if self.finished else now, done, note)
        elif now - self.last_line_at >= self.every_seconds:
            self.last_line_at = now
            self.write(now, done, note)

    def write(self, now: float, done: int, note: str) -> None:
        print(self.sentence(now, done, note), file=self.stream, flush=True)

    def sentence(self, now: float, done: int, note: str) -> str:
        """The line to print at time `now`."""
        share = f" ({done / self.total:.0%})" if self.total else ""
        parts = [f"{self.title}: {done:,} of {self.total:,} {self.unit}{share}", *self.pace(now, done), note]
        return ", ".join(part for part in parts if part)

    def pace(self, now: float, done: int) -> list[str]:
        """Rate and time left; empty until a second update allows to compute them."""
        began, done_before = self.started or (now, done)
        if done <= done_before or now <= began:
            return []
        rate = (done - done_before) / (now - began)
        shown_rate = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        if done >= self.total:
            return [f"{shown_rate} {self.unit}/s", f"took {duration(now - began)}"]
        return [f"{shown_rate} {self.unit}/s", f"{duration((self.total - done) / rate)} left"]

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
    """A bar if `stream` (default: stderr) is a terminal, lines otherwise."""
    stream = stream or sys.stderr
    if stream.isatty():
        return BarProgress(title, total, unit, stream)
    return LineProgress(title, total, unit, stream, every_seconds)


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
