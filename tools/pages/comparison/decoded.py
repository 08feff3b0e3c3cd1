"""Sets of latents against the codec's reconstructions of their photographs."""

from __future__ import annotations

from pathlib import Path

from pages.comparison.goals import GOALS, goal_row
from pages.comparison.reading import compared_sets
from pages.comparison.tables import quality_lines
from pages.markdown import NOT_YET, number


def block(root: Path) -> str:
    """Tables and goals of each set of latents."""
    lines: list[str] = []
    for one in [each for each in compared_sets(root) if each.codec_floor is not None]:
        other = one.against_decoded()
        decided = [f"{goal.words}: {goal_row(goal, [other])[1]}" for goal in GOALS]
        lines += [
            f"### {one.title}, against the codec's reconstructions",
            "",
            *quality_lines(other),
            "",
            "The reconstructions are the best that a model of the latents can reach; their own MMD to the photographs, "
            f"the codec's floor, is {number(one.codec_floor)}. The goals by these numbers: {'; '.join(decided)}.",
            "",
        ]
    return "\n".join(lines).rstrip() or NOT_YET
