"""Tables in Markdown: the first column to the left, numbers to the right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

NOT_YET = "Not measured yet."

Column = TypeVar("Column")


def table(heads: list[str], body: Iterable[list[str]]) -> list[str]:
    """The lines of a table; ValueError if it has no rows, or a row with another number of cells than heads."""
    rules = ["---" if index == 0 else "---:" for index, _ in enumerate(heads)]
    rows = [heads, rules, *body]
    if len(rows) == 2:
        raise ValueError(f"a table has no rows below its heads {heads}")
    if odd := [row for row in rows if len(row) != len(heads)]:
        raise ValueError(f"a table of {len(heads)} columns has a row of {len(odd[0])} cells: {odd[0]}")
    return ["| " + " | ".join(row) + " |" for row in rows]


def number(value: float | None) -> str:
    """A number with three significant digits, at most three of them decimals; "" for None."""
    return "" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def digits(value: float | None) -> str:
    """Three significant digits, all digits before the point; "" for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def best_in_bold(
    lines: Mapping[str, Mapping[Column, float]], columns: Iterable[Column]
) -> dict[str, list[str]]:
    """The cells of each line, by its name; the lowest number of a column is bold, a missing one is empty."""
    cells: dict[str, list[str]] = {name: [] for name in lines}
    for column in columns:
        best = min((line[column] for line in lines.values() if column in line), default=None)
        for name, line in lines.items():
            text = number(line.get(column))
            cells[name].append(f"**{text}**" if text and line[column] == best else text)
    return cells


def folded(summary: str, *lines: str) -> list[str]:
    """Lines that a reader opens with a click on the summary."""
    return [f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]
