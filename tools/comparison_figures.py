"""Figures of the comparison, drawn from the stored results: quality against evaluations, and against milliseconds.

    python tools/comparison_figures.py --samples runs/scenes64     grids of the images that a campaign generated

tools/render_results.py draws docs/images/comparison.png and comparison_milliseconds.png where they are missing or were
drawn from other numbers, of which a figure holds a hash.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from comparison_goals import BATCHES, Times, milliseconds, read_times
from comparison_tables import METHODS, Compared, compared_sets
from PIL import Image

from lediflow.sampling.grids import labelled_grid

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

FOLDER = Path("docs/images")
NUMBERS = "numbers"  # key of the hash in a figure


class Style(NamedTuple):
    """How a method is drawn."""

    colour: str
    marker: str
    is_map: bool = False


STYLES = {
    "fm": Style("#4d4d4d", "o"),
    "ot": Style("#999999", "s"),
    "paper": Style("#e08214", "v"),
    "auto": Style("#2166ac", "o"),
    "wide": Style("#35978f", "D"),
    "fm_map": Style("#4d4d4d", "o", is_map=True),
    "wide_map": Style("#35978f", "D", is_map=True),
    "both_maps": Style("#b2182b", "P", is_map=True),
}
ROOT, COLUMNS = Path(__file__).parents[1], 10  # of the grids of samples
SHORT = {"fm": "FM", "auto": "LeDiFlow", "wide_map": "flow map of LeDiFlow"}
SAMPLES = {
    "comparison_samples": [
        ("fm", "euler", 1), ("auto", "euler", 1), ("wide_map", "jump", 1),
        ("fm", "midpoint", 1), ("auto", "midpoint", 1), ("wide_map", "jump", 2),
        ("fm", "midpoint", 2), ("auto", "midpoint", 2), ("wide_map", "jump", 4),
        ("fm", "midpoint", 4), ("auto", "midpoint", 4),
    ],
    "comparison_samples_few": [
        ("fm", "midpoint", 1), ("fm", "midpoint", 4), ("auto", "midpoint", 1), ("wide_map", "jump", 1),
    ],
}  # fmt: skip


def quality_figure(sets: list[Compared]) -> Figure:
    """A panel for each set: MMD against evaluations of the flow model."""
    columns = 2 if len(sets) > 1 else 1
    rows = -(-len(sets) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 3.1 * rows), squeeze=False)
    for axis, one in zip(axes.flat, sets, strict=False):
        draw(axis, one, lambda method, nfe: nfe)
        axis.set_title(one.heading, fontsize=10)
        axis.set_xlabel("evaluations of the flow model", fontsize=9)
        with_ticks(axis, [1, 2, 4, 8, 16])
    return finished(figure, len(sets))


def milliseconds_figure(sets: list[Compared], times: Times) -> Figure:
    """A row for each set, a column for each batch size: MMD against milliseconds an image."""
    figure, axes = pyplot.subplots(len(sets), len(BATCHES), figsize=(9.2, 2.9 * len(sets)), squeeze=False)
    for line, one in zip(axes, sets, strict=True):
        for axis, batch in zip(line, BATCHES, strict=True):
            draw(axis, one, lambda method, nfe, batch=batch: milliseconds(times, method, nfe, batch))  # type: ignore[misc]
            axis.set_title(f"{one.title}, batch {batch}", fontsize=10)
            axis.set_xlabel("milliseconds an image", fontsize=9)
            with_ticks(axis, [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50])
    return finished(figure, len(sets) * len(BATCHES))


def draw(axis: Axes, one: Compared, place: Callable[[str, int], float | None]) -> None:
    """The methods of a set; those without a place are left out."""
    for method, style in STYLES.items():
        found = [(place(method, nfe), cell.value) for nfe, cell in one.cells.get(method, {}).items()]
        points = sorted((x, y) for x, y in found if x is not None)
        if points:
            axis.plot(
                *zip(*points, strict=True),
                color=style.colour,
                marker=style.marker,
                markersize=4.5,
                linewidth=1.4,
                linestyle=":" if style.is_map else "-",
                markerfacecolor="white" if style.is_map else style.colour,
                label=METHODS[method],
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylabel("MMD x 1000", fontsize=9)
    axis.grid(alpha=0.25, which="both", linewidth=0.5)
    values = [cell.value for method in STYLES for cell in one.cells.get(method, {}).values()]
    axis.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_ylim(min(values) * 0.85, max(values) * 1.15)
    axis.tick_params(labelsize=8)


def with_ticks(axis: Axes, places: list[float]) -> None:
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def finished(figure: Figure, panels: int) -> Figure:
    """One legend below all panels, and no empty panels."""
    handles: dict[str, Artist] = {}
    for number, axis in enumerate(figure.axes):
        if number >= panels:
            axis.set_axis_off()
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    order = [name for name in METHODS.values() if name in handles]
    figure.legend(
        [handles[name] for name in order], order, loc="lower center", ncols=2, fontsize=8.5, frameon=False
    )
    height = figure.get_figheight()
    figure.tight_layout(rect=(0, (0.25 * -(-len(order) // 2) + 0.1) / height, 1, 1))
    return figure


def figures(root: Path) -> dict[Path, tuple[str, Callable[[], Figure]]]:
    """Every figure that there are numbers for: the hash of its numbers, and how it is drawn."""
    sets, times = compared_sets(root), read_times(root)
    found: dict[Path, tuple[str, Callable[[], Figure]]] = {}
    if sets:
        found[FOLDER / "comparison.png"] = (digest(sets), lambda: quality_figure(sets))
    if sets and times:
        name = FOLDER / "comparison_milliseconds.png"
        found[name] = (digest((sets, sorted(times.items()))), lambda: milliseconds_figure(sets, times))
    return found


def digest(numbers: object) -> str:
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]


def outdated(root: Path) -> list[Path]:
    """Figures that are missing or were drawn from other numbers."""
    return [path for path, (wanted, _) in figures(root).items() if drawn_from(root / path) != wanted]


def drawn_from(path: Path) -> str | None:
    if not path.is_file():
        return None
    with Image.open(path) as picture:
        found = picture.info.get(NUMBERS)
    return found if isinstance(found, str) else None


def draw_outdated(root: Path) -> None:
    """Draw the figures that are out of date."""
    known = figures(root)
    for path in outdated(root):
        numbers, drawn = known[path]
        drawn().savefig(root / path, dpi=130, metadata={"Software": None, NUMBERS: numbers})


def samples_grid(folder: Path, settings: list[tuple[str, str, int]]) -> Image.Image:
    """The first images of each setting (method, solver, steps), not selected: a row each, a seed in each column."""
    rows, labels = [], []
    for method, solver, steps in settings:
        path = folder / f"quality_{method}/pictures/{solver}-{steps}.png"
        strip = np.asarray(Image.open(path).convert("RGB"))
        rows.append(np.stack(np.split(strip, strip.shape[1] // strip.shape[0], axis=1))[:COLUMNS])
        labels.append(f"{SHORT[method]}, {evaluations(solver, steps)}")
    return labelled_grid(rows, labels)


def evaluations(solver: str, steps: int) -> str:
    count = steps * {"midpoint": 2, "heun3": 3}.get(solver, 1)
    return "1 evaluation" if count == 1 else f"{count} evaluations"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--samples", type=Path, required=True, metavar="FOLDER", help="of tools/campaign/comparison.py"
    )
    folder = parser.parse_args().samples
    for name, settings in SAMPLES.items():
        samples_grid(folder, settings).save(ROOT / FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
