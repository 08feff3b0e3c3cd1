"""The overview as a table that is drawn again in place: `python -m lediflow.status --watch`.

Nothing of the terminal is changed that would have to be put back: neither another screen nor a hidden cursor. After
Ctrl-C, or a kill, the last table stays above the next prompt. Without a terminal each table is printed once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from lediflow.cluster.watching.overview import JobRow, Overview, overview_table
from lediflow.cluster.watching.states import StateKind
from lediflow.tracking.progress import is_interactive

REST = 4  # pauses are at least this many times as long as a look at all runs, however many there are
COLOURS = {StateKind.RUNNING: "green", StateKind.FAILED: "red", StateKind.DONE: "dim"}
AROUND = 3  # lines of the terminal that are not for rows: the heads, the last line, the prompt


def watch(
    look: Callable[[], Overview],
    every_seconds: float,
    stream: TextIO | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the table until interrupted."""
    stream = stream or sys.stdout
    shown = Drawing(stream) if is_interactive(stream) else Printing(stream)
    try:
        while True:
            began = time.monotonic()
            shown.show(look(), every_seconds)
            sleep(max(every_seconds, REST * (time.monotonic() - began)))
    finally:
        shown.close()


class Printing:
    """Prints each table, with its time: for files and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, overview: Overview, every_seconds: float) -> None:
        texts = [clock_time(overview), *overview.notes, overview_table(overview.rows)]
        print("\n".join(texts) + "\n", file=self.stream, flush=True)

    def close(self) -> None:
        """Nothing is left to do."""


class Drawing:
    """Draws each table over the one before; lines are cut off at the width of the terminal, never broken."""

    def __init__(self, stream: TextIO) -> None:
        from rich.live import Live

        from lediflow.tracking.bar import SteadyConsole

        self.console = SteadyConsole(file=stream, force_terminal=True)
        self.live = Live(console=self.console, auto_refresh=False, vertical_overflow="crop")

    def show(self, overview: Overview, every_seconds: float) -> None:
        from rich.text import Text

        rows = fitting(overview.rows, self.console.height - AROUND - len(overview.notes))
        head, *lines = overview_table(rows).splitlines()
        drawn = Text(no_wrap=True, overflow="ellipsis")
        drawn.append(f"{head}\n", "bold")
        for row, line in zip(rows, lines, strict=True):
            drawn.append(f"{line}\n", COLOURS.get(row.state.kind, ""))
        for note in overview.notes:
            drawn.append(f"note: {note}\n")
        drawn.append(f"{clock_time(overview)}{left_out(overview, rows)}, every {every_seconds:g} s", "dim")
        self.live.start()
        self.live.update(drawn, refresh=True)

    def close(self) -> None:
        """End the last line, so that the prompt begins on a new one."""
        self.live.stop()


def fitting(rows: Sequence[JobRow], room: int) -> list[JobRow]:
    """At most `room` rows, in their order: finished ones are left out first."""
    excess = len(rows) - max(1, room)
    if excess <= 0:
        return list(rows)
    done = [row for row in rows if row.state.kind is StateKind.DONE][:excess]
    return [row for row in rows if row not in done][: max(1, room)]


def left_out(overview: Overview, shown: Sequence[JobRow]) -> str:
    """How many rows the terminal has no room for."""
    count = len(overview.rows) - len(shown)
    return f", {count} more without --watch" if count else ""


def clock_time(overview: Overview) -> str:
    return time.strftime("%H:%M:%S", time.localtime(overview.now))
