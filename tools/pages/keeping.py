"""What tools/render_results.py keeps of finished runs: numbers in results/, pictures in docs/images/."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from lediflow.errors import UserError
from lediflow.evaluation.results import birth_certificate
from lediflow.records import read_json
from pages import demo
from pages.comparison import samples
from pages.evaluations import GRID
from pages.stored import Results, document

IMAGES = Path("docs/images")
PICTURE = IMAGES / "samples.png"
GRID_PICTURES = ("pareto.png", "images-LeDiFlow.png")
ANONYMITY_OPTIONS = ("seed", "solver", "steps", "strengths")
METHODS = {"LeDiFlow": "flow", "Flow matching": "baseline"}  # name in tables -> folder in the demo
COLUMNS, MOST_TILES, GAP = 16, 64, 2  # of the picture of samples
PACKAGE_FOLDER = re.compile(r"[^=,\[\s]*/elpv_dataset/data/images")


def keep_demo(folder: Path, root: Path) -> None:
    """Keep a finished demo's numbers and a picture of its samples."""
    runs = []
    for method, name in METHODS.items():
        found = document(folder / name / "results" / "results.json")
        measured = found["results"]
        rows, real = measured["rows"], measured["real_mmd"]
        runs.append({"method": method, "certificate": found["certificate"], "real_mmd": real, "rows": rows})
    steps = [anonymous(step) for step in read_json(folder / "steps.json", "run tools/demo.py again")]
    sheet = contact_sheet(sorted((folder / "flow" / "samples").glob("*.png")), folder)
    write(root / demo.RESULTS, {"runs": runs, "steps": steps}, indent=2)
    (root / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(root / PICTURE, optimize=True)


def anonymous(step: Results) -> Results:
    """The step without the place where this machine keeps its packages."""
    return {**step, "command": PACKAGE_FOLDER.sub("PHOTOGRAPHS", step["command"])}


def contact_sheet(files: Sequence[Path], folder: Path) -> Image.Image:
    """The first samples of a demo side by side on white."""
    if not files:
        raise UserError(
            f"{folder} has no samples in flow/samples; --collect takes the folder of a finished demo"
        )
    tiles = [Image.open(path) for path in files[:MOST_TILES]]
    side = tiles[0].width + GAP
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new(tiles[0].mode, (COLUMNS * side - GAP, rows * side - GAP), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        sheet.paste(tile, (column * side, row * side))
    return sheet


def keep_bench(file: Path, root: Path) -> None:
    """Keep a benchmark's rows under the file's name, whose folder is nobody else's."""
    if not file.name.startswith("bench_"):
        raise UserError(f"{file}: no block is rendered from this name; call it bench_NAME.json")
    found = document(file)
    certificate = found["certificate"]
    certificate["command"] = re.sub(r"--output \S+", f"--output results/{file.name}", certificate["command"])
    write(root / "results" / file.name, found, indent=2)


def keep_grid(folder: Path, root: Path) -> None:
    """Keep a grid's numbers, its plot and the first run's pictures (in few colours: they are grey)."""
    found = document(folder / "results.json")
    for row in found["results"]["rows"]:
        row.pop("record", None)  # fingerprints of features that are not kept
    write(root / GRID, found)
    for name in GRID_PICTURES:
        picture = Image.open(folder / name).convert("RGB").quantize(64)
        picture.save(root / IMAGES / f"grid-{name}", optimize=True)


def keep_anonymity(folder: Path, name: str, root: Path) -> None:
    """Keep the numbers of `lediflow.edit anonymity`, whose file names neither command nor place, and its command."""
    record = document(folder / "anonymity.json")
    options = {key: value for key, value in record["settings"].items() if key in ANONYMITY_OPTIONS}
    words = [f"{key}={value}".replace(" ", "") for key, value in options.items()]
    command = ["python", "-m", "lediflow.edit", "anonymity", "persons=folders", *words]
    certificate = birth_certificate(seed=options["seed"], command=command)
    found = {"certificate": certificate, "results": record}
    write(root / "results" / f"anonymity_{name}.json", found)


def keep_samples(folder: Path, names: Sequence[str], root: Path) -> None:
    """Draw grids of the images that a finished tools/campaign/comparison.py left in its folder."""
    if not names or not {*names} <= {*samples.GRIDS}:
        known = ", ".join(samples.GRIDS)
        raise UserError(f"--samples {folder} {' '.join(names)}: no such grid; give one or more of {known}")
    for name in names:
        samples.samples_grid(folder, samples.GRIDS[name]).save(root / IMAGES / f"{name}.png", optimize=True)


def write(path: Path, content: Results, indent: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=indent) + "\n")
