"""The comparison's goals, and milliseconds at equal quality, from the tables of comparison_tables.py.

Two rules decide, with h the root of the sum of squares of half a 95 % interval of both numbers: A is *as good as* B if
it is not above B by more than h, and *better than* B if it is below B by more than h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from statistics import median
from typing import NamedTuple

from comparison_photographs import photographs_block
from comparison_repeats import repeats_block
from comparison_tables import (
    FLOWS,
    FROM_NOISE,
    MAPS,
    METHODS,
    SETS,
    Cell,
    Compared,
    Results,
    against_decoded,
    compared_sets,
    comparison_block,
    others_block,
    quality_lines,
    read,
    unseen_block,
)
from markdown_tables import number, table

# of the compared networks, or if these were not measured, of the paper's
BENCHES = (
    tuple(f"bench_sampling_campaign64{part}_h200" for part in ("", "_one", "_maps", "_maps_one")),
    ("bench_sampling_batch_h200", "bench_sampling_one_h200", "bench_sampling_jump_h200"),
)
BATCHES = (1, 64)
FM, JUMP = "FM", "jump"
PLANNED = 6  # sets
FACTOR = 3.75  # milliseconds at equal quality in the paper
SAMPLER_CALLS = 8
HEUN3 = 12  # evaluations by four steps of Heun3
WITH_MAPS = (*FLOWS, *MAPS)


class Choice(NamedTuple):
    """A method at a number of evaluations."""

    method: str
    nfe: int
    cell: Cell

    def __str__(self) -> str:
        return f"{number(self.cell.value)} ({METHODS[self.method]}, {self.nfe})"


def as_good(one: Cell, other: Cell) -> bool:
    return one.value <= other.value + hypot(one.half, other.half)


def better(one: Cell, other: Cell) -> bool:
    return one.value < other.value - hypot(one.half, other.half)


def best_at(one: Compared, methods: Iterable[str], nfe: int) -> Choice | None:
    """The best of these methods at a number of evaluations; None if none was measured there."""
    found = [Choice(method, nfe, cell) for method in methods if (cell := one.cell(method, nfe))]
    return min(found, key=lambda choice: choice.cell.value, default=None)


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


def goal_row(goal: Goal, sets: list[Compared]) -> list[str]:
    """A goal's numbers on each set, and on how many it is reached."""
    cells, reached, measured = [], 0, 0
    for one in sets:
        ours, theirs = best_at(one, goal.methods, goal.nfe), one.cell("fm", goal.fm_nfe)
        if ours is None or theirs is None:
            cells.append("not measured")
            continue
        is_reached = goal.is_reached(ours.cell, theirs)
        is_whole = is_reached or goal.methods == FLOWS or bool({*one.cells} & {*MAPS})
        reached, measured = reached + is_reached, measured + is_whole
        word = "yes" if is_reached else "no" if is_whole else "open, no map was measured"
        cells.append(f"{word}: {number(ours.cell.value)} / {number(theirs.value)}")
    return [goal.words, *cells, verdict(reached, goal.needed, measured)]


def verdict(reached: int, needed: int, measured: int) -> str:
    """Whether a goal is reached; open where the sets that were not measured could still decide."""
    could_be = reached + PLANNED - measured
    word = "yes" if reached >= needed else "open" if could_be >= needed else "no"
    return f"**{word}**: on {reached} of {measured} measured sets; the goal is {needed} of {PLANNED}"


def goals_block(root: Path) -> str:
    """Every goal with its numbers: LeDiFlow's / flow matching's."""
    sets = compared_sets(root)
    if not sets:
        return "Not measured yet."
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
            "trainings, which was not measured on these sets: small differences could turn with another seed."
            + unmeasured(sets),
        ]
    )


def unmeasured(sets: list[Compared]) -> str:
    """The sets of the plan that are missing, as a sentence."""
    missing = [title for name, title in SETS.items() if name not in {one.name for one in sets}]
    return f" Not measured: {'; '.join(missing)}." if missing else ""


def decoded_block(root: Path) -> str:
    """Sets of latents against the codec's reconstructions of their photographs: tables and goals."""
    lines: list[str] = []
    for one in [each for each in compared_sets(root) if each.codec_floor is not None]:
        other = against_decoded(one)
        decided = [f"{goal.words}: {goal_row(goal, [other])[1]}" for goal in GOALS]
        lines += [
            f"#### {one.title}, against the codec's reconstructions",
            "",
            *quality_lines(other),
            "",
            "The reconstructions are the best that a model of the latents can reach; their own MMD to the photographs, "
            f"the codec's floor, is {number(one.codec_floor)}. The goals by these numbers: {'; '.join(decided)}.",
            "",
        ]
    return "\n".join(lines).rstrip() or "Not measured yet."


@dataclass
class Times:
    """Milliseconds an image by part, method, batch, solver and evaluations: those of one network, on one GPU."""

    rows: dict[tuple[str, str, int, str, int], float]
    about: Results  # a row of the benchmark

    def chain(self, method: str, nfe: int, batch: int) -> float | None:
        """A method's whole chain; None if it is unknown.

        Flows that were not measured at `nfe` evaluations take as long for each as those that were, which differ by 1 %.
        """
        kind, is_map = kind_of(method), method.endswith(("_map", "_maps", "_mean"))
        measured = {
            solver: spent
            for (part, whose, size, solver, count), spent in self.rows.items()
            if (part, whose, size, count) == ("chain", kind, batch, nfe) and (solver == JUMP) == is_map
        }
        # measured chains of LeDiFlow's maps have a sampler's map
        is_of_parts = kind != FM and is_map and method != "both_maps"
        if measured and not is_of_parts:
            return median(measured.values())
        flows = {
            count: spent
            for (part, whose, size, solver, count), spent in self.rows.items()
            if (part, whose, size) == ("flow", kind, batch) and (solver == JUMP) == is_map
        }
        if not flows or method == "both_maps":
            return None
        flow = flows.get(nfe, nfe * median(spent / count for count, spent in flows.items()))
        if kind == FM:
            return flow
        others = [
            self.rows.get(("sampler", kind, batch, "midpoint", SAMPLER_CALLS)),
            self.rows.get(("decoder", kind, batch, "", 0)),
        ]
        return None if None in others else flow + sum(part for part in others if part is not None)


def kind_of(method: str) -> str:
    """The chain of a method, as the benchmark names it."""
    return FM if method in FROM_NOISE else "LeDiFlow"


def read_times(root: Path) -> Times | None:
    """The times of the compared networks, or of the paper's; None without benchmarks."""
    for names in BENCHES:
        files = [root / "results" / f"{name}.json" for name in names]
        rows: list[Results] = [row for path in files if path.is_file() for row in read(path)["rows"]]
        found = {
            (row["part"], row["method"], row["batch"], row.get("solver", ""), row.get("NFE", 0)): row[
                "ms/img"
            ]
            for row in rows
            if "ms/img" in row
        }
        if found:
            return Times(found, rows[0])
    return None


def fastest(
    one: Compared, methods: Iterable[str], target: Cell, times: Times, batch: int
) -> tuple[float, Choice] | None:
    """The quickest of these methods' settings that is as good as `target`."""
    found = [
        (spent, Choice(method, nfe, cell))
        for method in methods
        for nfe, cell in one.cells.get(method, {}).items()
        if as_good(cell, target) and (spent := times.chain(method, nfe, batch)) is not None
    ]
    return min(found, key=lambda pair: pair[0], default=None)


def factor_row(batch: int, sets: list[Compared], times: Times) -> list[str]:
    """Flow matching's milliseconds for its best quality, divided by those of LeDiFlow for the same."""
    cells, reached, measured = [], 0, 0
    for one in sets:
        if not timed([one]):
            cells.append("not timed")
            continue
        line = one.cells["fm"]
        target = min(line.values(), key=lambda cell: cell.value)
        theirs, ours = (fastest(one, methods, target, times, batch) for methods in (("fm",), WITH_MAPS))
        if theirs is None:
            cells.append("not measured")
            continue
        factor = theirs[0] / ours[0] if ours else 0.0
        is_open = (
            factor >= FACTOR and HEUN3 not in line
        )  # with which FM could need fewer evaluations than with midpoint
        reached, measured = reached + (factor >= FACTOR and not is_open), measured + (not is_open)
        word = f"open, FM at {HEUN3} was not measured" if is_open else "yes" if factor >= FACTOR else "no"
        cells.append(f"{word}: {factor:.2g}" if ours else "no: quality not reached")
    return [
        f"{FACTOR} times as fast as FM at its best quality, batch {batch}",
        *cells,
        verdict(reached, 3, measured),
    ]


def timed(sets: list[Compared]) -> list[Compared]:
    """Sets of pixels on which flow matching was measured: the benchmarks' chains have no codec."""
    return [one for one in sets if one.codec_floor is None and "fm" in one.cells]


def factors_block(root: Path) -> str:
    """For each set and batch: how long both take for flow matching's quality at 8 evaluations and at its best."""
    times, body = read_times(root), list[list[str]]()
    if not times:
        return "Not measured yet."
    for one in timed(compared_sets(root)):
        line = one.cells["fm"]
        best = min(line, key=lambda nfe: line[nfe].value)
        targets = [nfe for nfe in dict.fromkeys((8, best)) if nfe in line]
        rows = [factor_cells(one, nfe, batch, times) for nfe in targets for batch in BATCHES]
        body += [row for row in rows if row is not None]
    about = times.about
    has_maps = any(solver == JUMP for *_, solver, _ in times.rows)
    untimed = "" if has_maps else " Maps are left out: only flows were timed."
    heads = ["set", "quality", "batch", "FM: ms an image", "LeDiFlow: ms an image", "factor"]
    return "\n".join(
        [
            *table(heads, body),
            "",
            f"The quickest setting of each that is as good as the named quality, by the rule above. Times are those of "
            f"`{about['model']}` in {about['precision']} on one H200, compiled and replayed as CUDA graphs; LeDiFlow's "
            "has the latent sampler and the decoder in it. Where a number of evaluations was not measured, each takes "
            "as long as in the measured flows. Quality was measured in float32."
            + untimed
            + call_overhead(times),
        ]
    )


def call_overhead(times: Times) -> str:
    """What Python and the wait for the images add to a chain, by batch size, where both were measured."""
    added: dict[int, list[float]] = {}
    for (part, kind, batch, solver, nfe), spent in times.rows.items():
        chain = times.rows.get(("chain", kind, batch, solver, nfe))
        if part == "call" and chain is not None:
            added.setdefault(batch, []).append(batch * (spent - chain))
    return "".join(
        f" By the wall clock a call at batch {batch} takes {min(found):.1f} to {max(found):.1f} ms longer than its "
        "chain on the GPU alone, from which the factors are."
        for batch, found in sorted(added.items())
    )


def factor_cells(one: Compared, nfe: int, batch: int, times: Times) -> list[str] | None:
    """What both take for flow matching's quality at `nfe` evaluations; None if its time was not measured."""
    target = one.cells["fm"][nfe]
    theirs, ours = (fastest(one, methods, target, times, batch) for methods in (("fm",), WITH_MAPS))
    if theirs is None:
        return None
    ratio = f"{theirs[0] / ours[0]:.2g}" if ours else ""
    quality = f"{number(target.value)} (FM at {nfe})"
    return [one.title, quality, f"{batch}", spent_on(theirs), spent_on(ours), ratio]


def spent_on(found: tuple[float, Choice] | None) -> str:
    if found is None:
        return "quality not reached"
    spent, choice = found
    return f"{spent:.3g} ({METHODS[choice.method]}, {choice.nfe})"


def blocks(root: Path) -> dict[str, str]:
    """The comparison's blocks by name."""
    return {
        "comparison": comparison_block(root),
        "comparison_others": others_block(root),
        "comparison_decoded": decoded_block(root),
        "comparison_goals": goals_block(root),
        "comparison_factors": factors_block(root),
        "comparison_unseen": unseen_block(root),
        "comparison_repeats": repeats_block(root),
        "comparison_photographs": photographs_block(root),
    }
