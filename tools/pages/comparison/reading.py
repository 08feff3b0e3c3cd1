"""The compared sets from the stored results.

Sets of the campaign tools/campaign/comparison.py are read from results/campaign/comparison_NAME.json, with methods that
were trained later from comparison_NAME_maps*.json, and further seeds from comparison_NAME_seed*.json. Numbers
that several files have are means. Sets of an earlier campaign are from widths_NAME.json and flow_maps_NAME.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from lediflow.errors import UserError
from pages.comparison.sets import COLUMNS, METHODS, SETS, STRAIGHT, Cell, Compared
from pages.stored import CAMPAIGN, Results, alike, document, results

# methods of the two earlier campaigns, by the names of their rows
FROM_MAPS = {
    "fm": ("fm_euler", "fm_midpoint"),
    "auto": ("flow_euler", "flow_midpoint"),
    "wide": ("teacher_wide",),
    "fm_map": ("fm_base",),
    "auto_map": ("flow_base",),
    "wide_map": ("flow_wide",),
}
FROM_WIDTHS = {"paper": ("s0", "sampler"), "fm": ("s0", "gaussian")}
WIDE = re.compile(r"wide=stage\.prior_scale=([\d.]+),stage\.prior_widening=([\d.]+)")


def compared_sets(root: Path, names: dict[str, str] = SETS) -> list[Compared]:
    """The measured sets, in the order of `names`."""
    found = [
        from_campaign(root, name, title) or from_earlier(root, name, title) for name, title in names.items()
    ]
    sets = [each for each in found if each is not None and each.cells]
    if len({each.mmd_name for each in sets}) > 1:
        metrics = ", ".join(f"{each.name}: {each.mmd_name}" for each in sets)
        raise UserError(
            f"the compared sets have different metrics, so that no table can have them all: {metrics}"
        )
    return sets


def trainings_of(root: Path, name: str) -> list[Results]:
    """What every training of a set gave: one entry for each seed of each of its files."""
    folder = root / CAMPAIGN
    files = [folder / f"comparison_{name}.json"]
    for later in ("maps", "seed"):
        files += sorted(folder.glob(f"comparison_{name}_{later}*.json"))
    return [
        one for file in files if file.is_file() for one in results(file)["seeds"].values() if one["methods"]
    ]


def from_campaign(root: Path, name: str, title: str) -> Compared | None:
    """A set of the campaign of the comparison; None if it was not measured by it."""
    seeds = trainings_of(root, name)
    if not seeds:
        return None
    if unknown := {method for one in seeds for method in one["methods"]} - {*METHODS}:
        raise UserError(f"the results of {name} have {', '.join(unknown)}; name these methods in sets.py")
    first = alike(seeds, "images", "reference_images", "mmd_name", "held_out_images")
    rows = {
        method: [row for one in seeds for row in one["methods"].get(method, {"rows": []})["rows"]]
        for method in METHODS
    }
    starts: dict[str, tuple[float, float]] = {}
    for one in reversed(seeds):
        starts |= {method: (found["k"], found["s"]) for method, found in one["methods"].items()}
    return Compared(
        name,
        title,
        {method: cells_of(found, method in STRAIGHT) for method, found in rows.items() if found},
        first["images"],
        first["reference_images"],
        first["mmd_name"],
        first["held_out_images"],
        starts,
        {method: highest_shares(found) for method, found in rows.items() if found},
        first.get("codec_floor"),
    )


def from_earlier(root: Path, name: str, title: str) -> Compared | None:
    """A set put together from the campaigns of widths and of flow maps; None without them."""
    maps, widths = (root / CAMPAIGN / f"{kind}_{name}.json" for kind in ("flow_maps", "widths"))
    if not (maps.is_file() or widths.is_file()):
        return None
    campaign, flows = document(maps), results(widths)["flows"]
    first = campaign["results"]
    cells: dict[str, dict[int, Cell]] = {}
    for method, (flow, z) in FROM_WIDTHS.items():
        rows = [row for row in flows[flow]["rows"] if row["z"] == z]
        cells[method] = cells_of(
            row | {"mmd_unbiased": row["mmd"], "mmd_interval": (row["low"], row["high"])} for row in rows
        )
    for method, parts in FROM_MAPS.items():
        rows = [row for part in parts for row in first["rows"].get(part, [])]
        if rows:  # where both have a cell, it is that of the campaign of flow maps
            cells[method] = cells.get(method, {}) | cells_of(rows)
    widened = WIDE.search(campaign["certificate"]["command"])
    starts = dict.fromkeys(("wide", "wide_map"), (float(widened[1]), float(widened[2]))) if widened else {}
    images, of = first["images"], first["reference_images"]
    return Compared(name, title, cells, images, of, first["mmd_name"], starts=starts)


def cells_of(rows: Iterable[Results], is_straight: bool = False) -> dict[int, Cell]:
    """Cells by number of evaluations: the column's solver, or Euler if straightened, and jumps of a map."""
    by_nfe: dict[int, list[Results]] = {}
    for row in rows:
        if row["solver"] in ("euler" if is_straight else COLUMNS.get(row["nfe"]), "jump"):
            by_nfe.setdefault(row["nfe"], []).append(row)
    return {nfe: cell_of(found) for nfe, found in sorted(by_nfe.items())}


def cell_of(rows: list[Results]) -> Cell:
    """One cell of the rows of all seeds; what one of them has, each of them must have."""
    value, half = (
        mean(row["mmd_unbiased"] for row in rows),
        mean(half_of(row["mmd_interval"]) for row in rows),
    )
    cell = Cell(value, half, seeds=len(rows))
    for name in ("held_out", "decoded"):
        if any(name in row for row in rows):
            other = mean(half_of(row[f"{name}_interval"]) for row in rows)
            cell = cell._replace(**{name: mean(row[name] for row in rows), f"{name}_half": other})
    return cell


def half_of(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2


def highest_shares(rows: list[Results]) -> dict[str, float]:
    return {
        key: max(row[key] for row in rows)
        for key in ("share_memorised", "share_closer")
        if any(key in row for row in rows)
    }
