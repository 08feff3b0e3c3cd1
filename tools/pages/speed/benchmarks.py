"""The table of a benchmark of tools/bench: those columns that a reader compares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pages import origins
from pages.markdown import digits, table
from pages.stored import Results

MODEL_COLUMNS = ("model", "batch", "compile", "pass", "ms/img", "img/s", "TFLOP/s", "% of peak", "GiB")
SAMPLING_COLUMNS = (
    "model", "batch", "method", "part", "solver", "NFE", "runtime", "precision",
    "p50 ms", "p95 ms", "ms/img", "peak GiB",
)  # fmt: skip


def rows_lines(results: Results) -> list[str]:
    """A line for each row; routes of attention side by side."""
    rows = results["rows"]
    if "route" in rows[0] and "shape" in rows[0]:
        return attention_lines(rows)
    heads = columns_of(rows)
    return table(heads, [[cell(row.get(column, "")) for column in heads] for row in rows])


def columns_of(rows: list[Results]) -> list[str]:
    """Columns of passes over a model, of parts of a chain, or all that the rows hold."""
    if "% of peak" in rows[0]:
        return [*MODEL_COLUMNS]
    if "method" in rows[0]:
        return [*SAMPLING_COLUMNS]
    return [*dict.fromkeys(column for row in rows for column in row)]


def attention_lines(rows: list[Results]) -> list[str]:
    """Milliseconds: forward / forward and backward, a column for each route."""
    routes = list(dict.fromkeys(row["route"] for row in rows))
    times = {(row["shape"], row["route"], row["pass"]): row["ms"] for row in rows}
    body = [
        [shape, *(both_directions(times, shape, route) for route in routes)]
        for shape in dict.fromkeys(row["shape"] for row in rows)
    ]
    return table(["batch x tokens x heads x head dim", *routes], body)


def both_directions(times: dict[tuple[str, str, str], float], shape: str, route: str) -> str:
    passes = (times.get((shape, route, name)) for name in ("forward", "forward + backward"))
    return " / ".join("none" if each is None else f"{each:.3g}" for each in passes)


def cell(value: Any) -> str:
    """Three digits of a number; words as they are."""
    return digits(value) if isinstance(value, float) else str(value)


def block(document: Results, lines: Callable[[Results], list[str]] = rows_lines) -> str:
    """A benchmark's table, and where the numbers come from."""
    return "\n".join([*lines(document["results"]), "", origins.of_benchmark(document)])
