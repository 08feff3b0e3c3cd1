"""What people look at beside results.json: a table in Markdown, and quality against cost as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lediflow.disk import whole_or_absent
from lediflow.evaluate.session import Session
from lediflow.evaluation.grid.pareto import pareto_panels
from lediflow.evaluation.grid.table import table_markdown

TABLE, PLOT = "table.md", "pareto"
VIEWS = (TABLE, f"{PLOT}.png", f"{PLOT}.svg")


def write_views(
    session: Session,
    output: Path,
    rows: Sequence[dict[str, Any]],
    *,
    real_mmd: float | None,
    baseline: str | None = None,
    paths: dict[str, dict[str, float]] | None = None,
    floor: dict[str, Any] | None = None,
) -> None:
    """By the first rank. Speed is measured against the run `baseline`, `floor` is of the codec's reconstructions."""
    with session.group.together(f"writing {output}"):
        if session.group.is_first:
            from lediflow.evaluation.plots import pareto_figure, write_figure

            with whole_or_absent(output / TABLE) as stream:
                stream.write(table_markdown(rows, baseline, paths=paths, floor=floor).encode())
            figure = pareto_figure(pareto_panels(rows), rows[0]["mmd_name"], real_mmd)
            write_figure(figure, output / PLOT)
