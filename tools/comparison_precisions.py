"""The table of sampling in bfloat16 and in float8: what they cost in quality, from precisions_NAME.json."""

from __future__ import annotations

from pathlib import Path

from comparison_goals import as_good
from comparison_tables import COLUMNS, METHODS, SETS, Cell, cells_of, compared_sets, read
from markdown_tables import number, table

SOLVERS = "2, 4, 8 and 16 are midpoint steps"


def precisions_block(root: Path) -> str:
    """For each set and flow, float32 (of the comparison, another training) and the other precisions."""
    lines, body = {one.name: one for one in compared_sets(root)}, []
    columns = [nfe for nfe, solver in COLUMNS.items() if solver == "midpoint"]
    for name, title in SETS.items():
        path = root / f"results/campaign/precisions_{name}.json"
        if not path.is_file() or name not in lines:
            continue
        for method, found in read(path)["methods"].items():
            first = lines[name].cells[method]
            body.append([title, METHODS[method], "float32", *(shown(first.get(nfe)) for nfe in columns)])
            for precision, rows in found.items():
                cells = cells_of(rows)
                values = (shown(cells.get(nfe), first.get(nfe)) for nfe in columns)
                body.append([title, METHODS[method], precision, *values])
    if not body:
        return "Not measured yet."
    heads = ["set", "flow", "precision", *(f"{nfe}" for nfe in columns)]
    said = (
        f"MMD, as in the tables of the comparison; {SOLVERS}. Bold: worse than float32 by more than the intervals of "
        "both. float32 is of another training of the same seed, so differences as small as those between two "
        "trainings say nothing."
    )
    return "\n".join([*table(heads, body), "", said])


def shown(cell: Cell | None, exact: Cell | None = None) -> str:
    """A cell's number, bold where it is worse than the exact one."""
    if cell is None:
        return ""
    text = number(cell.value)
    return f"**{text}**" if exact and not as_good(cell, exact) else text
