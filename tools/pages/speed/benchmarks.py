"""The table of a benchmark of tools/bench: those columns that a reader compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pages import origins
from pages.markdown import digits, table
from pages.stored import Results, by_key

MODEL_COLUMNS = ("model", "batch", "compile", "pass", "ms/img", "img/s", "TFLOP/s", "% of peak", "GiB")
SAMPLING_COLUMNS = (
    "model", "batch", "method", "part", "solver", "NFE", "runtime", "precision",
    "p50 ms", "p95 ms", "ms/img", "peak GiB",
)  # fmt: skip
# settings: named once below a table where they are the same in all of its rows
COMMON = ("model", "stage", "engine", "ranks", "batch", "runtime", "precision", "solver", "compile", "rounds")
# rows may lack these: decoders have no solver, CPUs no peak; the others belong to one way of those that were compared
MAY_LACK = {
    "solver", "NFE", "peak GiB", "unbiased", "+-", "/ exact", "/ streaming", "p99 ms", "CPU ms",
    "held out: bfloat16", "held out: float8",
}  # fmt: skip


def rows_lines(results: Results) -> list[str]:
    """A line for each row; routes of attention side by side."""
    rows = results["rows"]
    if "route" in rows[0] and "shape" in rows[0]:
        return attention_lines(rows)
    columns = [*dict.fromkeys(column for row in rows for column in row)]
    if "% of peak" in columns:  # passes over a model
        return chosen(MODEL_COLUMNS, rows)
    if "method" in columns:  # parts of a chain; flow matching's has one part, its flow
        return chosen(
            SAMPLING_COLUMNS, [row for row in rows if (row["method"], row["part"]) != ("FM", "flow")]
        )
    return chosen(columns, rows)


def chosen(columns: Sequence[str], rows: Sequence[Results]) -> list[str]:
    """The table of these columns; a row that lacks one of MAY_LACK has an empty cell.

    Without columns of nothing, such as the collectives of single ranks. Below a table of several rows stands what
    they have in common, instead of in each of them.
    """
    columns = [column for column in columns if any(row.get(column, "") is not None for row in rows)]
    common = [column for column in COMMON if column in columns and in_common(column, rows)]
    columns = [column for column in columns if column not in common]
    body = [
        [cell(row.get(column, "") if column in MAY_LACK else row[column]) for column in columns]
        for row in rows
    ]
    facts = ", ".join(f"{column} {rows[0][column]}" for column in common)
    return [*table([*columns], body), *(["", f"All rows: {facts}."] if common else [])]


def in_common(column: str, rows: Sequence[Results]) -> bool:
    """Whether all of several rows have one value in this column."""
    return len(rows) > 1 and all(column in row and row[column] == rows[0][column] for row in rows)


def attention_lines(rows: list[Results]) -> list[str]:
    """Milliseconds: forward / forward and backward, a column for each route."""
    routes = list(dict.fromkeys(row["route"] for row in rows))
    times = by_key(rows, lambda row: (row["shape"], row["route"], row["pass"]), "ms")
    body = [
        [shape, *(both_directions(times, shape, route) for route in routes)]
        for shape in dict.fromkeys(row["shape"] for row in rows)
    ]
    return table(["batch x tokens x heads x head dim", *routes], body)


def both_directions(times: dict[tuple[str, str, str], float], shape: str, route: str) -> str:
    passes = (times.get((shape, route, name)) for name in ("forward", "forward + backward"))
    return " / ".join("none" if each is None else f"{each:.3g}" for each in passes)


def cell(value: Any) -> str:
    """Three digits of a number; words as they are; nothing for null."""
    return digits(value) if value is None or isinstance(value, float) else str(value)


def block(document: Results, lines: Callable[[Results], list[str]] = rows_lines) -> str:
    """A benchmark's table, and where the numbers come from."""
    return "\n".join([*lines(document["results"]), "", origins.of_benchmark(document)])
