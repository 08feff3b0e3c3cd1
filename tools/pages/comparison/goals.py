"""The comparison's goals: LeDiFlow at few evaluations against flow matching at more, on every set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from pages.comparison.factors import factor_row
from pages.comparison.reading import compared_sets
from pages.comparison.rules import as_good, better, verdict
from pages.comparison.sets import FLOWS, MAPS, METHODS, SETS, WITH_MAPS, Cell, Compared
from pages.comparison.times import BATCHES, read_times
from pages.markdown import NOT_YET, number, table


class Goal(NamedTuple):
    """LeDiFlow's best method at some evaluations against flow matching at more, on at least `needed` sets."""

    words: str
    methods: tuple[str, ...]
    nfe: int
    fm_nfe: int
    is_reached: Callable[[Cell, Cell], bool]
    needed: int


GOALS = (
    Goal("LeDiFlow or its flow map at 2 evaluations as good as FM at 8", WITH_MAPS, 2, 8, as_good, 4),
    Goal("LeDiFlow or its flow map at 4 evaluations better than FM at 16", WITH_MAPS, 4, 16, better, 3),
    Goal("one call of a flow map as good as FM at 8", MAPS, 1, 8, as_good, 2),
    Goal("without a flow map: LeDiFlow at 2 evaluations as good as FM at 8", FLOWS, 2, 8, as_good, 4),
    Goal("without a flow map: LeDiFlow at 4 evaluations better than FM at 16", FLOWS, 4, 16, better, 3),
)


def block(root: Path) -> str:
    """Every goal with its numbers: LeDiFlow's / flow matching's."""
    sets = compared_sets(root)
    if not sets:
        return NOT_YET
    times = read_times(root)
    rows = [goal_row(goal, sets) for goal in GOALS]
    rows += [factor_row(batch, sets, times) for batch in BATCHES] if times else []
    heads = ["goal", *(one.title for one in sets), "reached"]
    return "\n".join(
        [
            *table(heads, rows),
            "",
            "Each cell: MMD of the best LeDiFlow method / of flow matching. As good: not above it by more than h; "
            "better: below it by more than h, where h is the root of the sum of squares of half their 95 % intervals. "
            f"The methods are {', '.join(METHODS[each] for each in WITH_MAPS)}; choosing the best of them by the same "
            "numbers favours LeDiFlow a little. Intervals cover the sampling of images, not the variation between "
            "trainings, which was not measured on these sets: small differences could be reversed with another seed."
            + unmeasured(sets),
        ]
    )


def goal_row(goal: Goal, sets: list[Compared]) -> list[str]:
    """A goal's numbers on each set, and on how many it is reached."""
    cells, reached, measured = [], 0, 0
    for one in sets:
        ours, theirs = best_at(one, goal.methods, goal.nfe), one.cell("fm", goal.fm_nfe)
        if ours is None or theirs is None:
            cells.append("not measured")
            continue
        is_reached = goal.is_reached(ours, theirs)
        is_whole = is_reached or goal.methods == FLOWS or bool({*one.cells} & {*MAPS})
        reached, measured = reached + is_reached, measured + is_whole
        word = "yes" if is_reached else "no" if is_whole else "open, no map was measured"
        cells.append(f"{word}: {number(ours.value)} / {number(theirs.value)}")
    return [goal.words, *cells, verdict(reached, goal.needed, measured)]


def best_at(one: Compared, methods: Iterable[str], nfe: int) -> Cell | None:
    """The best of these methods at a number of evaluations; None if none was measured there."""
    found = [cell for method in methods if (cell := one.cell(method, nfe))]
    return min(found, key=lambda cell: cell.value, default=None)


def unmeasured(sets: list[Compared]) -> str:
    """The sets of the plan that are missing, as a sentence."""
    missing = [title for name, title in SETS.items() if name not in {one.name for one in sets}]
    return f" Not measured: {'; '.join(missing)}." if missing else ""
