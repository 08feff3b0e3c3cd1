"""A job or run by what people call it: the job's name, the run's folder, or SLURM's id."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from lediflow.cluster.watching.row import Row
from lediflow.errors import UserError


def find(rows: Sequence[Row], asked: str) -> Row:
    """UserError with the nearest names where nothing is called so."""
    for row in rows:
        if (
            asked == row.name
            or asked.partition("_")[0] in ids(row)
            or asked in ids(row)
            or is_folder(row, asked)
        ):
            return row
    names = [row.name for row in rows]
    nearest = difflib.get_close_matches(asked.strip("/").replace("/", "."), names, n=3, cutoff=0.4)
    if not names:
        raise UserError(
            f"there is no job or run {asked!r}, nor any other; give the folder of runs: --runs=RUNS"
        )
    raise UserError(
        f"there is no job or run {asked!r}; "
        + (f"nearest names: {', '.join(nearest)}" if nearest else "`lediflow.status` lists all")
    )


def ids(row: Row) -> list[str]:
    return row.record.job_ids if row.record else []


def is_folder(row: Row, asked: str) -> bool:
    """Whether a path leads to the run, or to the job's own folder."""
    asked_path = Path(os.path.abspath(asked))  # noqa: PTH100 - links stay as they are, as in the record
    return asked_path in (row.run, row.job.root if row.job else None)
