"""Milliseconds at equal quality: flow matching against LeDiFlow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pages.comparison.reading import compared_sets
from pages.comparison.rules import as_good, verdict
from pages.comparison.sets import METHODS, WITH_MAPS, Cell, Compared
from pages.comparison.times import BATCHES, JUMP, Times, read_times
from pages.markdown import NOT_YET, number, table

FACTOR = 3.75  # milliseconds at equal quality in the paper
HEUN3 = 12  # evaluations by four steps of Heun3
HEADS = ["set", "quality", "batch", "FM: ms an image", "LeDiFlow: ms an image", "factor"]


class Quickest(NamedTuple):
    """A method's setting, and its milliseconds an image."""

    spent: float
    method: str
    nfe: int

    def __str__(self) -> str:
        return f"{self.spent:.3g} ({METHODS[self.method]}, {self.nfe})"


def quickest(
    one: Compared, methods: Iterable[str], target: Cell, times: Times, batch: int
) -> Quickest | None:
    """The quickest of these methods' settings that is as good as `target`."""
    found = [
        Quickest(spent, method, nfe)
        for method in methods
        for nfe, cell in one.cells.get(method, {}).items()
        if as_good(cell, target) and (spent := times.chain(method, nfe, batch)) is not None
    ]
    return min(found, key=lambda each: each.spent, default=None)


def race(one: Compared, target: Cell, times: Times, batch: int) -> tuple[Quickest | None, Quickest | None]:
    """Flow matching's and LeDiFlow's quickest setting that is as good as `target`."""
    theirs, ours = (quickest(one, methods, target, times, batch) for methods in (("fm",), WITH_MAPS))
    return theirs, ours


def timed(sets: list[Compared]) -> list[Compared]:
    """Sets of pixels on which flow matching was measured: the benchmarks' chains have no codec."""
    return [one for one in sets if one.codec_floor is None and "fm" in one.cells]


def factor_row(batch: int, sets: list[Compared], times: Times) -> list[str]:
    """The goal of the paper's factor: FM's milliseconds for its best quality, divided by LeDiFlow's for the same."""
    cells, reached, measured = [], 0, 0
    for one in sets:
        if not timed([one]):
            cells.append("not timed")
            continue
        line = one.cells["fm"]
        theirs, ours = race(one, min(line.values(), key=lambda cell: cell.value), times, batch)
        if theirs is None:
            cells.append("not measured")
            continue
        factor = theirs.spent / ours.spent if ours else 0.0
        # with Heun3 FM could need fewer evaluations than with midpoint
        is_open = factor >= FACTOR and HEUN3 not in line
        reached, measured = reached + (factor >= FACTOR and not is_open), measured + (not is_open)
        word = f"open, FM at {HEUN3} was not measured" if is_open else "yes" if factor >= FACTOR else "no"
        cells.append(f"{word}: {factor:.2g}" if ours else "no: quality not reached")
    words = f"{FACTOR} times as fast as FM at its best quality, batch {batch}"
    return [words, *cells, verdict(reached, 3, measured)]


def block(root: Path) -> str:
    """For each set and batch: how long both take for flow matching's quality at 8 evaluations and at its best."""
    times, body = read_times(root), list[list[str]]()
    if not times:
        return NOT_YET
    for one in timed(compared_sets(root)):
        line = one.cells["fm"]
        best = min(line, key=lambda nfe: line[nfe].value)
        targets = [nfe for nfe in dict.fromkeys((8, best)) if nfe in line]
        rows = [factor_cells(one, nfe, batch, times) for nfe in targets for batch in BATCHES]
        body += [row for row in rows if row is not None]
    return "\n".join([*table(HEADS, body), "", about(times)])


def factor_cells(one: Compared, nfe: int, batch: int, times: Times) -> list[str] | None:
    """What both take for flow matching's quality at `nfe` evaluations; None if its time was not measured."""
    target = one.cells["fm"][nfe]
    theirs, ours = race(one, target, times, batch)
    if theirs is None:
        return None
    quality = f"{number(target.value)} (FM at {nfe})"
    if ours is None:
        return [one.title, quality, f"{batch}", str(theirs), "quality not reached", ""]
    return [one.title, quality, f"{batch}", str(theirs), str(ours), f"{theirs.spent / ours.spent:.2g}"]


def about(times: Times) -> str:
    has_maps = any(solver == JUMP for *_, solver, _ in times.rows)
    untimed = "" if has_maps else " Maps are omitted: only flows were timed."
    return (
        "The fastest setting of each that is as good as the named quality, by the rule of the goals. Times are those "
        f"of `{times.about['model']}` in {times.about['precision']} on one H200, compiled and replayed as CUDA "
        "graphs; LeDiFlow's includes the latent sampler and the decoder. Where a number of evaluations was not timed, "
        "each is taken to last as long as in the timed flows. Quality was measured in float32."
        f"{untimed}{times.call_overhead()}"
    )
