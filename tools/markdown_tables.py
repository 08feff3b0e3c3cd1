"""Tables in Markdown: the first column to the left, numbers to the right."""

from __future__ import annotations


def cell(value: float | None, best: float) -> str:
    text = number(value)
    return f"**{text}**" if text and value == best else text


def number(value: float | None) -> str:
    """A number with three significant digits; "" for None."""
    return "" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def table(heads: list[str], body: list[list[str]]) -> list[str]:
    rules = ["---" if index == 0 else "---:" for index, _ in enumerate(heads)]
    return ["| " + " | ".join(row) + " |" for row in (heads, rules, *body)]


def folded(summary: str, *lines: str) -> list[str]:
    """Lines that a reader opens with a click on the summary."""
    return [
        f"<details><summary>{summary}</summary>",
        "",
        *lines,
        "",
        "</details>",
    ]
