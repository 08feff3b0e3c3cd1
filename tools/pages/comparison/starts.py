"""The table of the wide start against the default one, by the number of evaluations."""

from __future__ import annotations

from pathlib import Path

from pages.comparison.reading import compared_sets
from pages.comparison.rules import as_good, better
from pages.comparison.sets import COLUMNS, Compared
from pages.markdown import NOT_YET, table


def block(root: Path) -> str:
    """A row for each set, a column for each number of evaluations at which both starts were measured."""
    sets = [one for one in compared_sets(root) if {"auto", "wide"} <= {*one.cells}]
    columns = [nfe for nfe in COLUMNS if any(change(one, nfe) for one in sets)]
    if not columns:
        return NOT_YET
    body = [[f"{one.title}{starts(one)}", *(change(one, nfe) for nfe in columns)] for one in sets]
    return "\n".join(
        [
            *table(["set, s of both starts", *(f"{nfe}" for nfe in columns)], body),
            "",
            "The MMD with the wide start, as a change from that with the default start. Bold: outside the intervals of "
            "both (by the rule of the goals).",
        ]
    )


def starts(one: Compared) -> str:
    """The s of the default and the wide start, where they are known."""
    found = [one.starts[method][1] for method in ("auto", "wide") if method in one.starts]
    return f", {' / '.join(f'{s:.2g}' for s in found)}" if len(found) == 2 else ""


def change(one: Compared, nfe: int) -> str:
    default, wide = one.cell("auto", nfe), one.cell("wide", nfe)
    if default is None or wide is None:
        return ""
    text = f"{100 * (wide.value / default.value - 1):+.0f} %"
    return f"**{text}**" if better(wide, default) or not as_good(wide, default) else text
