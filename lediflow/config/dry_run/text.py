"""Numbers as a dry run prints them."""

from __future__ import annotations

from collections.abc import Sequence

GIB, GB = 2**30, 10**9
Facts = list[tuple[str, str]]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length below their heads: numbers on the right, words on the left."""
    found = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in found]
    places = [str.rjust if all(map(is_number, column[1:])) else str.ljust for column in found]
    lines = (
        "  ".join(place(cell, width) for place, cell, width in zip(places, row, widths, strict=True))
        for row in rows
    )
    return indented("\n".join(line.rstrip() for line in lines))


def is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdigit()


def facts_table(facts: Facts) -> str:
    """One fact a line: what, and the value with its unit."""
    width = max(len(name) for name, _ in facts)
    return indented("\n".join(f"{name:{width}}  {value}" for name, value in facts))


def indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def gibibytes(count: float) -> str:
    """As GPUs are measured."""
    return f"{count / GIB:.2f}"


def gigabytes(count: float) -> str:
    """As disks are measured."""
    return f"{count / GB:,.2f} GB"


def megabytes(count: float) -> str:
    """The same, of small things."""
    return f"{count / 10**6:,.1f} MB"


def clock_time(seconds: float) -> str:
    """1 d 6 h, 2 h 05 min, 3 min or 12 s."""
    days, hours = divmod(round(seconds / 3600), 24)
    if seconds >= 86_400:
        return f"{days} d {hours} h"
    if seconds >= 3600:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
