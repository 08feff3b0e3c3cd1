"""Blocks of what `lediflow` measured by one command and writes as tables itself: grids and anonymity."""

from __future__ import annotations

from pathlib import Path

from lediflow.editing.anonymisation import anonymity
from lediflow.evaluation import views as grid_table
from pages.origins import certificate_line
from pages.stored import Results

GRID = Path("results/grid.json")


def anonymity_block(document: Results) -> str:
    """How well surrogates hide persons, and where the numbers come from."""
    return f"{anonymity.page(document['results'])}\n{certificate_line(document['certificate'])}"


def grid_block(document: Results) -> str:
    """The tables of a grid, and where they come from."""
    rows, paths = document["results"]["rows"], document["results"]["paths"]
    _, baseline, *_ = document["results"]["runs"]
    parts = [
        grid_table.heading(rows),
        grid_table.summary(rows, baseline),
        grid_table.within_budgets(rows),
        grid_table.paths_table(paths),
        f"All {len(rows)} rows are in `{GRID}`. {certificate_line(document['certificate'])}",
    ]
    return "\n\n".join(parts)
