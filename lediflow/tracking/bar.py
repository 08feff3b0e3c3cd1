"""The progress bar on a terminal, drawn by rich. The only module that draws in place; see `progress` for the others."""

import io
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from lediflow.text import Rate

REFRESHES_PER_SECOND = 2  # a refresh takes a millisecond or two, in which no Python code trains


class BarProgress:
    """A bar that appears at the first update (which may not be 0) and keeps its last state; numbers are below it.

    While it is shown, log lines are written above it. The cursor stays visible, so that a process that is killed leaves
    a terminal that works.
    """

    def __init__(self, title: str, rate: Rate, stream: TextIO):
        self.title, self.rate = title, rate
        self.console = SteadyConsole(file=stream, force_terminal=True)
        self.bars = BarWithNumbers(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            console=self.console,
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self.task: TaskID | None = None
        # time when the total was reached
        self.finished_at: float | None = None
        self.is_closed = False
        self.shown = ExitStack()

    def update(self, done: int, note: str = "") -> None:
        if self.is_closed:
            return
        if self.task is None:
            self.task = self.bars.add_task(self.title, total=self.rate.total)
            self.shown.enter_context(self.bars)
            self.shown.enter_context(logs_above(self.console))
        now = self.finished_at or time.monotonic()
        if done >= self.rate.total:
            self.finished_at = now
        numbers = [self.rate.amount(done), *self.rate.phrases(now, done), note]
        self.bars.numbers = ", ".join(filter(None, numbers))
        self.bars.update(self.task, completed=done)

    def close(self) -> None:
        self.is_closed = True
        self.shown.close()


class BarWithNumbers(Progress):
    """rich's bar, and a line of numbers below it that is cut off at the width of the terminal."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(f"  {self.numbers}", no_wrap=True, overflow="ellipsis")


class SteadyConsole(Console):
    """A console that never hides the cursor."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


@contextmanager
def logs_above(console: Console) -> Iterator[None]:
    """Write log lines for the terminal through the console, which writes them above what it keeps drawn."""
    terminal = AboveTheBar(console)
    streams = [
        (handler, handler.setStream(terminal))
        for handler in logging.getLogger().handlers
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr)
    ]
    try:
        yield
    finally:
        for handler, stream in streams:
            handler.setStream(stream)


class AboveTheBar(io.TextIOBase):
    """A stream whose texts appear above what a console keeps drawn. Long lines are not broken."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def write(self, text: str) -> int:
        self.console.print(Text(text), end="", soft_wrap=True)
        return len(text)
