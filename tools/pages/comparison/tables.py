"""Quality by set, method and number of evaluations."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from pages.comparison.reading import compared_sets
from pages.comparison.sets import COLUMNS, FROM_NOISE, MAP_CALLS, METHODS, OTHERS, SETS, Compared
from pages.markdown import NOT_YET, best_in_bold, table


def block(root: Path) -> str:
    """The tables of all sets."""
    sets = compared_sets(root)
    if not sets:
        return NOT_YET
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
    return "\n".join(lines).rstrip() or NOT_YET


def set_lines(one: Compared) -> list[str]:
    """A set's heading, table and what its numbers are."""
    halves = [cell.half for line in one.cells.values() for cell in line.values()]
    missing = sum(one.cell(method, nfe) is None for method, nfe in planned())
    plan = f"{missing} of {len(planned())} cells of the plan were not measured." if one.name in SETS else ""
    return [
        f"### {one.heading}",
        "",
        *quality_lines(one),
        "",
        f"{one.images:,} generated images against all {one.noun}; half of a 95 % interval is {median(halves):.3f} "
        f"(median). {trainings(one)}. {plan}".rstrip(),
        "",
    ]


def quality_lines(one: Compared) -> list[str]:
    """A set's table: a row for each method, a column for each number of evaluations; the best of a column is bold."""
    values = {
        method: {nfe: cell.value for nfe, cell in one.cells[method].items()}
        for method in METHODS
        if method in one.cells
    }
    body = [[named(one, method), *cells] for method, cells in best_in_bold(values, one.columns).items()]
    return table(["method", *map(str, one.columns)], body)


def named(one: Compared, method: str) -> str:
    """A method's name, with its start if that is known and not the paper's."""
    if method not in one.starts or method in (*FROM_NOISE, "paper"):
        return METHODS[method]
    k, s = one.starts[method]
    return f"{METHODS[method]} ({k:g} sigma, s = {s:.2g})"


def trainings(one: Compared) -> str:
    """How often the methods were trained."""
    most = {method: max(cell.seeds for cell in line.values()) for method, line in one.cells.items()}
    if max(most.values()) == 1:
        return "Each method was trained once"
    several = sorted(method for method, seeds in most.items() if seeds > 1)
    names = ", ".join(METHODS[method] for method in several)
    return f"Means over {max(most.values())} trainings of {names}, one of each other method"


def planned() -> list[tuple[str, int]]:
    """The cells of the plan: five flows at all evaluations, two maps at 1, 2 and 4 calls."""
    flows = ("fm", "ot", "paper", "auto", "wide")
    return [
        *((each, nfe) for each in flows for nfe in COLUMNS),
        *((each, nfe) for each in ("fm_map", "wide_map") for nfe in MAP_CALLS),
    ]
