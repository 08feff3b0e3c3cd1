"""Quality against held-out photographs, and copies of training images."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from pages.comparison.reading import compared_sets
from pages.comparison.sets import METHODS, OTHERS, SETS, Compared
from pages.markdown import NOT_YET, best_in_bold, table

COPIES = (
    "Copies: the share of images whose nearest training image is less than a third as far away as the second nearest. "
    "Closer to training: the probability that an image is nearer to a training image than a held-out one is (50 %: no "
    "copying). Both are the highest of a method's settings.",
    "",
)
SHARES = {"share_memorised": "copies", "share_closer": "closer to training"}


def block(root: Path) -> str:
    """A table for each set that was compared with held-out photographs."""
    sets = [one for one in compared_sets(root, SETS | OTHERS) if one.held_out_images]
    lines = [line for one in sets for line in set_lines(one)]
    return "\n".join([*COPIES, *lines]).rstrip() if lines else NOT_YET


def set_lines(one: Compared) -> list[str]:
    values = {
        method: {nfe: cell.held_out for nfe, cell in one.cells[method].items() if cell.held_out is not None}
        for method in METHODS
        if method in one.cells
    }
    body = [
        [METHODS[method], *cells, *(percent(one.copies.get(method, {}).get(key)) for key in SHARES)]
        for method, cells in best_in_bold(values, one.columns).items()
    ]
    half = median(
        cell.held_out_half
        for line in one.cells.values()
        for cell in line.values()
        if cell.held_out is not None
    )
    return [
        f"### {one.title}, {one.held_out_images:,} held-out {one.noun}",
        "",
        *table(["method", *map(str, one.columns), *SHARES.values()], body),
        "",
        f"Half of a 95 % interval is {half:.3f} (median); the {one.noun}, and so most of this uncertainty, are "
        "the same for all methods.",
        "",
    ]


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
