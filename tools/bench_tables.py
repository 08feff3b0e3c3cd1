"""Columns and cells of the tables of tools/bench."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]
MODEL_COLUMNS = ("model", "batch", "compile", "pass", "ms/img", "img/s", "TFLOP/s", "% of peak", "GiB")
SAMPLING_COLUMNS = (
    "model", "batch", "method", "part", "solver", "NFE", "runtime", "precision",
    "p50 ms", "p95 ms", "ms/img", "peak GiB",
)  # fmt: skip


def columns_of(rows: list[Results]) -> list[str]:
    """Columns of passes over a model, of parts of a chain, or all that the rows hold."""
    if "% of peak" in rows[0]:
        return [*MODEL_COLUMNS]
    if "method" in rows[0]:
        return [*SAMPLING_COLUMNS]
    return [*dict.fromkeys(column for row in rows for column in row)]


def attention_table(rows: list[Results]) -> tuple[list[str], list[list[str]]]:
    """Milliseconds: forward / forward and backward, a column for each route."""
    routes = list(dict.fromkeys(row["route"] for row in rows))
    times = {(row["shape"], row["route"], row["pass"]): row["ms"] for row in rows}
    body = [
        [shape, *(both_directions(times, shape, route) for route in routes)]
        for shape in dict.fromkeys(row["shape"] for row in rows)
    ]
    return ["batch x tokens x heads x head dim", *routes], body


def both_directions(times: dict[tuple[str, str, str], float], shape: str, route: str) -> str:
    passes = (times.get((shape, route, name)) for name in ("forward", "forward + backward"))
    return " / ".join("none" if each is None else f"{each:.3g}" for each in passes)


def figure(value: Any) -> str:
    """Three digits of a number; words as they are."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
