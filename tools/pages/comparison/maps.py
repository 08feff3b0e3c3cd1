"""The table of what a flow map keeps of its teacher: quality at 1, 2 and 4 calls, and the error of its velocity."""

from __future__ import annotations

from pathlib import Path

from pages.comparison.reading import compared_sets, trainings_of
from pages.comparison.rules import as_good
from pages.comparison.sets import MAP_CALLS, METHODS, Compared
from pages.markdown import NOT_YET, number, table
from pages.stored import Results

# maps by name, and their teachers
TAUGHT = {
    "fm_map": "fm",
    "auto_map": "auto",
    "wide_map": "wide",
    "long_map": "wide",
    "wide_mean": "wide",
}


def block(root: Path) -> str:
    """A row for each map of each set."""
    body = [
        row_of(one, student, trainings_of(root, one.name))
        for one in compared_sets(root)
        for student in TAUGHT
        if student in one.cells
    ]
    heads = ["set", "flow map", "teacher at 2", *(f"map at {calls}" for calls in MAP_CALLS), "one call as good",
             "more calls no worse", "velocity's error, teacher -> map"]  # fmt: skip
    if not body:
        return NOT_YET
    return "\n".join(
        [
            *table(heads, body),
            "",
            '"One call as good" as the teacher at 2 evaluations (midpoint); "more calls" (2 and 4) no worse than '
            "one: not above by more than the root of the sum of squares of half their 95 % intervals. The velocity's "
            "error is the squared error of the velocity (the map's at s = t) on 512 held-out images, of the weights in "
            "training. It was not kept for faces and for cats and dogs.",
        ]
    )


def row_of(one: Compared, student: str, trainings: list[Results]) -> list[str]:
    teacher = TAUGHT[student]
    calls, two = [one.cell(student, count) for count in MAP_CALLS], one.cell(teacher, 2)
    first, later = calls[0], [cell for cell in calls[1:] if cell]
    verdicts = ["", ""]
    if first and two:
        verdicts[0] = yes(as_good(first, two))
    if first and later:
        verdicts[1] = yes(all(as_good(cell, first) for cell in later))
    values = [number(cell.value if cell else None) for cell in (two, *calls)]
    return [one.title, METHODS[student], *values, *verdicts, errors(teacher, student, trainings)]


def errors(teacher: str, student: str, trainings: list[Results]) -> str:
    """The velocity's error of both, and the change; nothing where it is unknown."""
    for one in trainings:
        losses = one["losses"]
        if student in one["methods"] and "velocity_mse" in losses.get(student, {}):
            before, after = (losses[each]["velocity_mse"] for each in (teacher, student))
            return f"{before:.4f} -> {after:.4f} ({100 * (after / before - 1):+.1f} %)"
    return ""


def yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
