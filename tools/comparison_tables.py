"""The comparison of all methods as tables: quality by set, method and evaluations, seen and held-out photographs.

Sets of the campaign tools/campaign/comparison.py are read from results/campaign/comparison_NAME.json, with methods that
were trained later from comparison_NAME_maps*.json, and further seeds from comparison_NAME_seed*.json. Numbers
that several files have are means. Sets of an earlier campaign are from widths_NAME.json and flow_maps_NAME.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from campaign_tables import models
from markdown_tables import number, table

Results = dict[str, Any]
SETS = {
    "faces64": "Faces",
    "pets64": "Cats and dogs",
    "anime64": "Drawn faces",
    "scenes64": "Landscapes and streets",
    "landscapes128": "Landscapes, 128 x 128",
    "faces256c": "Faces, 256 x 256 as latents",
}
# of a set, with other models
OTHERS = {
    "scenes64_classes": "Landscapes and streets, by class",
    "scenes64_small": "Landscapes and streets, small models",
}
METHODS = {
    "fm": "FM",
    "ot": "OT-CFM",
    "paper": "LeDiFlow as in the paper",
    "auto": "LeDiFlow, default start",
    "wide": "LeDiFlow, wide start",
    "fm_map": "flow map of FM",
    "fm_reflow": "FM, straightened",
    "auto_map": "flow map of LeDiFlow, default start",
    "wide_map": "flow map of LeDiFlow, wide start",
    "both_maps": "flow maps of LeDiFlow (wide start) and of its sampler",
    "long_map": "flow map of LeDiFlow, wide start, distilled on three times as many images",
    "wide_mean": "flow map of LeDiFlow, wide start, by MeanFlow",
}
FLOWS, MAPS = ("auto", "wide"), ("auto_map", "wide_map", "both_maps")  # LeDiFlow with what was found
FROM_NOISE = ("fm", "ot", "fm_map", "fm_reflow")
STRAIGHT = ("fm_reflow",)  # sampled by Euler steps
COLUMNS = {1: "euler", 2: "midpoint", 4: "midpoint", 6: "heun3", 8: "midpoint", 12: "heun3", 16: "midpoint"}
MAP_CALLS = (1, 2, 4)
STAGE_SOURCES = {
    "training": "training images",
    "heldout": "held-out images",
    "sampler": "the latent sampler",
    "gaussian": "no z: FM",
}
# methods of the two earlier campaigns, by the names of their rows
FROM_MAPS = {
    "fm": ("fm_euler", "fm_midpoint"),
    "auto": ("flow_euler", "flow_midpoint"),
    "wide": ("teacher_wide",),
    "fm_map": ("fm_base",),
    "auto_map": ("flow_base",),
    "wide_map": ("flow_wide",),
}
WIDE = re.compile(r"wide=stage\.prior_scale=([\d.]+),stage\.prior_widening=([\d.]+)")
FROM_WIDTHS = {"paper": ("s0", "sampler"), "fm": ("s0", "gaussian")}

COPIES = (
    "Copies: the share of images whose nearest training image is less than a third as far away as the second nearest. "
    "Closer to training: the probability that an image is nearer to a training image than a held-out one is (50 %: no "
    "copying). Both are the highest of a method's settings.",
    "",
)


class Cell(NamedTuple):
    """The MMD of a method at a number of evaluations: a mean over seeds."""

    value: float
    half: float  # of a 95 % interval
    held_out: float | None = None  # against held-out photographs
    held_out_half: float = 0.0
    seeds: int = 1
    decoded: float | None = None  # against a codec's reconstructions
    decoded_half: float = 0.0


@dataclass
class Compared:
    """A set, and its methods by number of evaluations."""

    name: str
    title: str
    cells: dict[str, dict[int, Cell]]
    images: int
    reference_images: int
    mmd_name: str
    held_out_images: int = 0
    starts: dict[str, tuple[float, float]] = field(default_factory=dict)  # k and s
    copies: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # the highest shares over a method's settings
    codec_floor: float | None = None  # of the photographs to their reconstructions; None: a set of pixels

    @property
    def heading(self) -> str:
        return f"{self.title}, {self.reference_images:,} {self.noun}"

    @property
    def noun(self) -> str:
        """What its images are."""
        return "drawings" if self.name == "anime64" else "photographs"

    def cell(self, method: str, nfe: int) -> Cell | None:
        return self.cells.get(method, {}).get(nfe)


def compared_sets(root: Path, names: dict[str, str] = SETS) -> list[Compared]:
    """The measured sets, in the order of `names`."""
    folder = root / "results/campaign"
    found = [
        from_campaign(folder, name, title) or from_earlier(folder, name, title)
        for name, title in names.items()
    ]
    return [each for each in found if each is not None and each.cells]


def from_campaign(folder: Path, name: str, title: str) -> Compared | None:
    """A set of the campaign of the comparison; None if it was not measured by it."""
    seeds = trainings_of(folder, name)
    if not seeds:
        return None
    rows = {
        method: [row for one in seeds for row in one["methods"].get(method, {"rows": []})["rows"]]
        for method in METHODS
    }
    first, starts = seeds[0], dict[str, tuple[float, float]]()
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


def against_decoded(one: Compared) -> Compared:
    """A set of latents with its distances to the codec's reconstructions instead of those to the photographs."""
    cells = {
        method: {
            nfe: Cell(cell.decoded, cell.decoded_half)
            for nfe, cell in line.items()
            if cell.decoded is not None
        }
        for method, line in one.cells.items()
    }
    return replace(one, cells=cells)


def trainings_of(folder: Path, name: str) -> list[Results]:
    """What every training of a set gave: one entry for each seed of each of its files."""
    files = [folder / f"comparison_{name}.json"]
    for later in ("maps", "seed"):
        files += sorted(folder.glob(f"comparison_{name}_{later}*.json"))
    return [one for file in files if file.is_file() for one in read(file)["seeds"].values() if one["methods"]]


def from_earlier(folder: Path, name: str, title: str) -> Compared | None:
    """A set put together from the campaigns of widths and of flow maps; None without them."""
    maps, widths = folder / f"flow_maps_{name}.json", folder / f"widths_{name}.json"
    if not (maps.is_file() and widths.is_file()):
        return None
    first, second = read(maps), read(widths)
    cells: dict[str, dict[int, Cell]] = {}
    for method, (flow, z) in FROM_WIDTHS.items():
        rows = [row for row in second["flows"][flow]["rows"] if row["z"] == z]
        cells[method] = cells_of(
            [row | {"mmd_unbiased": row["mmd"], "mmd_interval": (row["low"], row["high"])} for row in rows]
        )
    for method, parts in FROM_MAPS.items():
        rows = [row for part in parts for row in first["rows"].get(part, [])]
        if rows:  # where both have a cell, it is that of the campaign of flow maps
            cells[method] = cells.get(method, {}) | cells_of(rows)
    widened = WIDE.search(json.loads(maps.read_text())["certificate"]["command"])
    starts = dict.fromkeys(("wide", "wide_map"), (float(widened[1]), float(widened[2]))) if widened else {}
    images, of = first["images"], first["reference_images"]
    return Compared(name, title, cells, images, of, first["mmd_name"], starts=starts)


def read(path: Path) -> Results:
    found: Results = json.loads(path.read_text())["results"]
    return found


def cells_of(rows: Iterable[Results], is_straight: bool = False) -> dict[int, Cell]:
    """Cells by number of evaluations: the column's solver, or Euler if straightened, and jumps of a map."""
    by_nfe: dict[int, list[Results]] = {}
    for row in rows:
        if row["solver"] in ("euler" if is_straight else COLUMNS.get(row["nfe"]), "jump"):
            by_nfe.setdefault(row["nfe"], []).append(row)
    return {nfe: cell_of(found) for nfe, found in sorted(by_nfe.items())}


def cell_of(rows: list[Results]) -> Cell:
    """One cell of the rows of all seeds."""
    value, half = (
        mean(row["mmd_unbiased"] for row in rows),
        mean(half_of(row["mmd_interval"]) for row in rows),
    )
    cell = Cell(value, half, seeds=len(rows))
    for name in ("held_out", "decoded"):
        if found := [row for row in rows if name in row]:
            other = mean(half_of(row[f"{name}_interval"]) for row in found)
            cell = cell._replace(**{name: mean(row[name] for row in found), f"{name}_half": other})
    return cell


def half_of(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2


def highest_shares(rows: list[Results]) -> dict[str, float]:
    return {
        key: max(row[key] for row in rows if key in row)
        for key in ("share_memorised", "share_closer")
        if any(key in row for row in rows)
    }


def quality_lines(one: Compared) -> list[str]:
    """A set's table: a row for each method, a column for each number of evaluations; the best of a column is bold."""
    columns = [nfe for nfe in COLUMNS if any(nfe in line for line in one.cells.values())]
    best = {nfe: min(line[nfe].value for line in one.cells.values() if nfe in line) for nfe in columns}
    body = [
        [named(one, method), *(shown(one.cell(method, nfe), best[nfe]) for nfe in columns)]
        for method in METHODS
        if method in one.cells
    ]
    return table(["method", *(f"{nfe}" for nfe in columns)], body)


def named(one: Compared, method: str) -> str:
    """A method's name, with its start if that is known and not the paper's."""
    if method not in one.starts or method in (*FROM_NOISE, "paper"):
        return METHODS[method]
    k, s = one.starts[method]
    return f"{METHODS[method]} ({k:g} sigma, s = {s:.2g})"


def shown(cell: Cell | None, best: float) -> str:
    if cell is None:
        return ""
    text = number(cell.value)
    return f"**{text}**" if cell.value == best else text


def set_lines(one: Compared) -> list[str]:
    """A set's heading, table and what its numbers are."""
    halves = [cell.half for line in one.cells.values() for cell in line.values()]
    missing = sum(nfe not in one.cells.get(method, {}) for method, nfe in expected(one))
    seeds = [cell.seeds for line in one.cells.values() for cell in line.values()]
    several = sorted(
        {method for method, line in one.cells.items() if max(cell.seeds for cell in line.values()) > 1}
    )
    trained = (
        "Each method was trained once"
        if max(seeds) == 1
        else f"Means over {max(seeds)} trainings of {joined(several)}"
    )
    planned = (
        f"{missing} of {len(expected(one))} cells of the plan were not measured." if one.name in SETS else ""
    )
    return [
        f"#### {one.heading}",
        "",
        *quality_lines(one),
        "",
        f"{one.images:,} generated images against all {one.noun}; half of a 95 % interval is {median(halves):.3f} "
        f"(median). {trained}. {planned}".rstrip(),
        "",
    ]


def joined(methods: Iterable[str]) -> str:
    return ", ".join(METHODS[method] for method in methods) + ", one of each other method"


def expected(one: Compared) -> list[tuple[str, int]]:
    """The cells of the plan: five flows at all evaluations, two maps at 1, 2 and 4 calls."""
    flows = ("fm", "ot", "paper", "auto", "wide")
    return [
        *((each, nfe) for each in flows for nfe in COLUMNS),
        *((each, nfe) for each in ("fm_map", "wide_map") for nfe in MAP_CALLS),
    ]


def comparison_block(root: Path) -> str:
    """The tables of all sets."""
    sets = compared_sets(root)
    if not sets:
        return "Not measured yet."
    head = (
        f"{sets[0].mmd_name}, unbiased, times 1000, by evaluations of the flow model; lower is better, and the best of "
        "a column is bold. 1 is an Euler step, 2, 4, 8 and 16 are midpoint steps, 6 and 12 Heun3, all calls of a flow "
        "map are jumps, all of a straightened flow Euler steps. LeDiFlow's latents come from its sampler: 8 "
        "evaluations of a smaller model, which count in the milliseconds but not here."
    )
    return "\n".join([head, "", *(line for one in sets for line in set_lines(one))]).rstrip()


def others_block(root: Path) -> str:
    """The same for other models of some sets."""
    lines = [line for one in compared_sets(root, OTHERS) for line in set_lines(one)]
    return "\n".join(lines).rstrip() or "Not measured yet."


def unseen_block(root: Path) -> str:
    """The same against held-out photographs, and copies, where that was measured."""
    lines = []
    for one in compared_sets(root, SETS | OTHERS):
        if not one.held_out_images:
            continue
        columns = [nfe for nfe in COLUMNS if any(nfe in line for line in one.cells.values())]
        values = {
            (method, nfe): cell.held_out
            for method, line in one.cells.items()
            for nfe, cell in line.items()
            if cell.held_out is not None
        }
        best = {nfe: min(value for (_, at), value in values.items() if at == nfe) for nfe in columns}
        body = []
        for method in [each for each in METHODS if each in one.cells]:
            found = [values.get((method, nfe)) for nfe in columns]
            cells = [
                "" if value is None else bold(value, best[nfe])
                for value, nfe in zip(found, columns, strict=True)
            ]
            shares = one.copies.get(method, {})
            body.append(
                [
                    METHODS[method],
                    *cells,
                    *(percent(shares.get(key)) for key in ("share_memorised", "share_closer")),
                ]
            )
        heads = ["method", *(f"{nfe}" for nfe in columns), "copies", "closer to training"]
        half = median(cell.held_out_half for line in one.cells.values() for cell in line.values())
        lines += [
            f"### {one.title}, {one.held_out_images:,} held-out {one.noun}",
            "",
            *table(heads, body),
            "",
            f"Half of a 95 % interval is {half:.3f} (median); the {one.noun}, and so most of this uncertainty, are "
            "the same for all methods.",
            "",
        ]
    return "\n".join([*COPIES, *lines]).rstrip() if lines else "Not measured yet."


def campaign_lines(document: Results) -> list[str]:
    """Images seen and losses of the models of a comparison, by seed, and which stage limits the quality."""
    lines: list[str] = []
    for seed, one in document["results"]["seeds"].items():
        lines += [f"Models of seed {seed}:", "", *models(one["losses"]), ""]
    return [*lines[:-1], *stage_lines(document["results"].get("stages"))]


def stage_lines(stages: Results | None) -> list[str]:
    """The quality with latents from each source, and the verdict of `evaluate mode=stages`."""
    if stages is None:
        return []
    sources = dict.fromkeys(row["z"] for row in stages["rows"])
    values = {(row["z"], row["nfe"]): row["mmd"] for row in stages["rows"]}
    counts = sorted({nfe for _, nfe in values})
    heads = ["z of", *(f"{nfe}" if nfe else "prior alone" for nfe in counts)]
    body = [[STAGE_SOURCES[z], *(number(values.get((z, nfe))) for nfe in counts)] for z in sources]
    head = (
        f"Which stage limits the quality (`evaluate mode=stages` of `wide`, {stages['images']:,} images of each "
        "source), by evaluations of the flow model:"
    )
    return ["", head, "", *table(heads, body), "", f"> {stages['verdict']['text']}"]


def bold(value: float, best: float) -> str:
    return f"**{number(value)}**" if value == best else number(value)


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
