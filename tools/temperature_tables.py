"""Markdown table of results/campaign/temperatures_*.json: one trained chain at several temperatures of the prior."""

from __future__ import annotations

from statistics import median
from typing import Any

from markdown_tables import number, table

Results = dict[str, Any]


def temperature_lines(document: Results) -> list[str]:
    """A row for each solver and temperature, a column for each number of solver steps."""
    rows = document["results"]["rows"]
    steps = sorted({row["steps"] for row in rows})
    found = {(row["solver"], row["temperature"], row["steps"]): row["mmd_unbiased"] for row in rows}
    kinds = sorted({(row["solver"], row["temperature"]) for row in rows}, reverse=True)
    body = [
        [f"{solver}, {value:g}", *(number(found.get((solver, value, step))) for step in steps)]
        for solver, value in kinds
    ]
    heads = ["solver, temperature", *(f"{step} step{'s' if step > 1 else ''}" for step in steps)]
    first, half = rows[0], median((row["mmd_interval"][1] - row["mmd_interval"][0]) / 2 for row in rows)
    return [
        *table(heads, body),
        "",
        f"{first['mmd_name']}, unbiased, times 1000: {first['sample_images']:,} generated images against all "
        f"{first['reference_images']:,} photographs; lower is better. Half of a 95 % interval is {half:.2f} (median); "
        "all rows start from the same z and noise. A midpoint step has two evaluations, an Euler step one.",
    ]


def of_methods(runs: list[Results]) -> str:
    """The temperatures that are not 1, by method, for the caption of a table; "" without any."""
    found = {run["method"]: run["rows"][0].get("temperature", 1) for run in runs}
    return "".join(
        f"; {method} at a temperature of {value:g}" for method, value in found.items() if value != 1
    )


LINES = {"temperatures": temperature_lines}
