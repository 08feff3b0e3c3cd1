"""Figures of the comparison, drawn from the stored results: quality against evaluations, and against milliseconds.

tools/render_results.py draws docs/images/comparison.png and comparison_milliseconds.png where they are missing or were
drawn from other numbers, of which a figure holds a hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib
from PIL import Image

from pages.comparison.factors import timed
from pages.comparison.reading import compared_sets
from pages.comparison.sets import METHODS, Compared
from pages.comparison.times import BATCHES, Times, read_times

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


def quality_figure(sets: list[Compared]) -> Figure:
    """A panel for each set: MMD against evaluations of the flow model."""
    columns = min(len(sets), 3 if len(sets) > 4 else 2)
    width = 3.7 if columns == 3 else 4.6
    rows = -(-len(sets) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(width * columns, 3.1 * rows), squeeze=False)
    for axis, one in zip(axes.flat, sets, strict=False):
        draw(axis, one, lambda method, nfe: nfe)
        axis.set_title(one.heading, fontsize=10 if columns < 3 else 9)
        axis.set_xlabel("evaluations of the flow model", fontsize=9)
        with_ticks(axis, [1, 2, 4, 8, 16])
    return finished(figure, len(sets))


def milliseconds_figure(sets: list[Compared], times: Times) -> Figure:
    """A row for each set, a column for each batch size: MMD against milliseconds an image."""
    figure, axes = pyplot.subplots(len(sets), len(BATCHES), figsize=(9.2, 2.5 * len(sets)), squeeze=False)
    for line, one in zip(axes, sets, strict=True):
        for axis, batch in zip(line, BATCHES, strict=True):
            draw(axis, one, lambda method, nfe, batch=batch: times.chain(method, nfe, batch))  # type: ignore[misc]
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
    """One legend, in an empty panel or below all panels."""
    handles: dict[str, Artist] = {}
    for number, axis in enumerate(figure.axes):
        if number >= panels:
            axis.set_axis_off()
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    order = [name for name in METHODS.values() if name in handles]
    shown = [handles[name] for name in order]
    if panels < len(figure.axes):
        figure.axes[panels].legend(shown, order, loc="center", fontsize=9.5, frameon=False, labelspacing=0.8)
        figure.tight_layout()
        return figure
    figure.legend(shown, order, loc="lower center", ncols=3, fontsize=8.5, frameon=False)
    figure.tight_layout(rect=(0, (0.19 * -(-len(order) // 3) + 0.1) / figure.get_figheight(), 1, 1))
    return figure


def figures(root: Path) -> dict[Path, tuple[str, Callable[[], Figure]]]:
    """Every figure that there are numbers for: the hash of its numbers, and how it is drawn."""
    sets, times = compared_sets(root), read_times(root)
    found: dict[Path, tuple[str, Callable[[], Figure]]] = {}
    if sets:
        found[FOLDER / "comparison.png"] = (digest(sets), lambda: quality_figure(sets))
    if sets and times and times.about["model"] == "campaign64":  # the networks whose quality is drawn
        name = FOLDER / "comparison_milliseconds.png"
        shown = timed(sets)
        found[name] = (digest((shown, times)), lambda: milliseconds_figure(shown, times))
    return found


def digest(numbers: object) -> str:
    """A hash of the numbers and of how they are drawn."""
    return hashlib.sha256(repr((numbers, METHODS, STYLES)).encode()).hexdigest()[:16]


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
