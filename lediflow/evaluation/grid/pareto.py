"""A grid's rows as points of quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lediflow.evaluation.grid.cells import ADAPTIVE
from lediflow.evaluation.plots import Line, Point

Row = dict[str, Any]
COSTS = {"ms_per_image": "milliseconds per image", "nfe": "evaluations of the flow model per image"}


def pareto_panels(rows: Sequence[Row]) -> dict[str, dict[Line, list[Point]]]:
    """For each cost a line for each run, solver and temperature; a cost that no row has is left out."""
    panels = {title: lines(rows, key) for key, title in COSTS.items()}
    return {title: found for title, found in panels.items() if found}


def lines(rows: Sequence[Row], cost: str) -> dict[Line, list[Point]]:
    """Points are labelled with their steps; what costs nothing has no place on a doubling axis."""
    found: dict[Line, list[Point]] = {}
    for row in rows:
        if row[cost] > 0:
            low, high = row["mmd_interval"]
            label = ADAPTIVE if row["solver"] == ADAPTIVE and row["steps"] else str(row["steps"])
            point = Point(row[cost], row["mmd_unbiased"], low, high, label)
            found.setdefault(line_of(row, rows), []).append(point)
    return found


def line_of(row: Row, rows: Sequence[Row]) -> Line:
    """The run, and what else tells its lines apart."""
    own = [other for other in rows if other["run"] == row["run"]]
    solvers = {other["solver"] for other in own if other["steps"]}
    temperatures = {other["temperature"] for other in own}
    return Line(
        row["run"],
        "prior alone" if not row["steps"] else row["solver"] if len(solvers) > 1 else "",
        f"temperature {row['temperature']:g}" if len(temperatures) > 1 else "",
    )
