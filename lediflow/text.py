"""Text for people to read: durations, rates, sizes, shapes, hashes, and tables in columns of equal width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

GIB, GB = 2**30, 10**9
Facts = list[tuple[str, str]]


class DurationUnits(NamedTuple):
    """Seconds from which a duration is written in minutes, in hours with minutes, and in days with hours."""

    minutes: float
    hours: float
    days: float


# for elapsed and remaining times: after rounding at most 99 s, 59 min and 47 h
RUNNING = DurationUnits(99.5, 3_570, 171_000)
# for planned times: days from one day on
PLANNED = DurationUnits(120, 3_600, 86_400)


def duration(seconds: float, units: DurationUnits = RUNNING) -> str:
    """Seconds in readable units: 42 s, 20 min, 3 h 05 min, 2 d 4 h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < units.minutes:
        return f"{seconds:.0f} s"
    if seconds < units.hours:
        return f"{minutes} min"
    if seconds < units.days:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


class Rate:
    """Amount, rate and time left of a task, as phrases. Rates count from the first update."""

    def __init__(self, total: int, unit: str):
        self.total, self.unit = total, unit
        self.started: tuple[float, int] | None = None  # time of the first update, units done by then

    def phrases(self, now: float, done: int) -> list[str]:
        """Rate, and time left or taken; empty until a second update allows to compute them."""
        self.started = self.started or (now, done)
        began, done_before = self.started
        if done <= done_before or now <= began:
            return []
        rate = (done - done_before) / (now - began)
        shown_rate = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        if done >= self.total:
            return [f"{shown_rate} {self.unit}/s", f"took {duration(now - began)}"]
        return [f"{shown_rate} {self.unit}/s", f"{duration((self.total - done) / rate)} left"]

    def amount(self, done: int) -> str:
        return f"{done:,} of {self.total:,} {self.unit}"


def gibibytes(count: float) -> str:
    """Bytes in GiB, the unit of GPU memory; without the unit, for columns."""
    return f"{count / GIB:.2f}"


def gigabytes(count: float) -> str:
    """Bytes in GB, the unit of disks."""
    return f"{count / GB:,.2f} GB"


def megabytes(count: float) -> str:
    """Bytes in MB."""
    return f"{count / 10**6:,.1f} MB"


def aligned_row(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool] | None = None) -> str:
    """One line of a table: each cell padded to its width, on the left where `right` says that it is right-aligned."""
    right = right or [False] * len(widths)
    padded = (
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()


def aligned_table(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Rows of equal length in columns of equal width; `right` says which columns are right-aligned."""
    widths = column_widths(rows)
    return "\n".join(aligned_row(row, widths, right) for row in rows)


def column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def number_table(rows: Sequence[Sequence[str]]) -> str:
    """An indented table with its heads in the first row: columns of numbers right-aligned, others left-aligned."""
    right = [all(map(is_number, column[1:])) for column in zip(*rows, strict=True)]
    return indented(aligned_table(rows, right))


def is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdigit()


def facts_table(facts: Facts) -> str:
    """An indented line for each fact: its name, and its value with the unit."""
    width = max(len(name) for name, _ in facts)
    return indented("\n".join(f"{name:{width}}  {value}" for name, value in facts))


def shape_text(shape: Iterable[int]) -> str:
    """A shape for a message, e.g. 64x3x3."""
    return "x".join(map(str, shape)) or "one number"


def steps_text(count: int) -> str:
    """A number of solver steps: 1 step, 4 steps."""
    return "1 step" if count == 1 else f"{count} steps"


def shown_hash(sha256: object) -> str:
    """The first 12 digits of a hash: enough for people to distinguish two. See `hash_key` in disk.py for keys."""
    return str(sha256)[:12]


def indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
