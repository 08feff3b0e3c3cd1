"""A grid's rows as points of quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lediflow.evaluation.grid.cells import ADAPTIVE
from lediflow.tracking.plot_files import Point

Row = dict[str, Any]
COSTS = {"ms_per_image": "milliseconds per image", "nfe": "evaluations of the flow model per image"}


def pareto_panels(rows: Sequence[Row]) -> dict[str, dict[str, list[Point]]]:
    """For each cost a line for each run, solver and temperature; a cost that no row has is left out."""
    panels = {title: lines(rows, key) for key, title in COSTS.items()}
    return {title: found for title, found in panels.items() if found}


def lines(rows: Sequence[Row], cost: str) -> dict[str, list[Point]]:
    """Points are labelled with their steps; what costs nothing has no place on a doubling axis."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        if row[cost] > 0:
            low, high = row["mmd_interval"]
            label = ADAPTIVE if row["solver"] == ADAPTIVE and row["steps"] else str(row["steps"])
            point = Point(row[cost], row["mmd_unbiased"], low, high, label)
            found.setdefault(line_name(row, rows), []).append(point)
    return found


def runs_of_lines(rows: Sequence[Row]) -> dict[str, str]:
    """The run that each line is of."""
    return {line_name(row, rows): row["run"] for row in rows}


def line_name(row: Row, rows: Sequence[Row]) -> str:
    """The run, and what else tells its lines apart."""
    own = [other for other in rows if other["run"] == row["run"]]
    name = row["run"] if row["steps"] else f"{row['run']}, prior alone"
    if row["steps"] and len({other["solver"] for other in own if other["steps"]}) > 1:
        name += f", {row['solver']}"
    if len({other["temperature"] for other in own}) > 1:
        name += f", temperature {row['temperature']:g}"
    return name
