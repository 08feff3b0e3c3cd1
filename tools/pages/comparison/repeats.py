"""The tables of what was trained more than once."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, median

from pages.comparison.reading import cells_of, trainings_of
from pages.comparison.sets import COLUMNS, METHODS, SETS
from pages.markdown import number, table
from pages.stored import CAMPAIGN, results

LOSSES = ("training", "held_out")


def block(root: Path) -> str:
    """Methods that were trained more than once: the numbers of each training, which the tables show the means of."""
    body: list[list[str]] = []
    differences: list[float] = []
    for name, title in SETS.items():
        seeds = [one["methods"] for one in trainings_of(root, name)]
        for method in METHODS:
            trained = [cells_of(one[method]["rows"]) for one in seeds if method in one]
            shared = {nfe for nfe in COLUMNS if sum(nfe in cells for cells in trained) > 1}
            if not shared:
                continue
            values = {nfe: [cells[nfe].value for cells in trained if nfe in cells] for nfe in shared}
            differences += [(max(found) - min(found)) / mean(found) for found in values.values()]
            cells = [" / ".join(map(number, values.get(nfe, []))) for nfe in COLUMNS]
            body.append([title, METHODS[method], *cells])
    lines: list[str] = []
    if body:
        lines = [
            *table(["set", "method", *(f"{nfe}" for nfe in COLUMNS)], body),
            "",
            f"The trainings of a method differ by {100 * median(differences):.1f} % of their mean (median), at most by "
            f"{100 * max(differences):.1f} %.",
            "",
        ]
    return "\n".join(lines + same_seed_lines(root)).rstrip() or "No method was trained more than once."


def same_seed_lines(root: Path) -> list[str]:
    """Losses of trainings that were repeated with the same seed on another machine."""
    body = [
        [SETS[run["set"]], run["model"], f"{run['images_seen']:,}", *(values_of(run[key]) for key in LOSSES)]
        for run in results(root / CAMPAIGN / "repeated_trainings.json")["runs"]
    ]
    return table(["set", "model", "images seen", "loss, training", "loss, held-out"], body)


def values_of(values: list[float]) -> str:
    """The value of each training, to the five decimals that results keep."""
    return " / ".join(f"{value:.5f}" for value in values)
