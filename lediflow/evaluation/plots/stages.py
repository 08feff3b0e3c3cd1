"""Figure of `mode=stages`: distance against evaluations, one line for each source of z."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from lediflow.evaluation.plots.pareto import (
    Line,
    Look,
    Point,
    distance_axis,
    doubling_axis,
    draw_lines,
    legend_below,
    looks_of_lines,
)
from lediflow.evaluation.plots.style import INK, MUTED, STYLE

WIDTH, TEXT_COLUMNS = 7.2, 98  # inches; characters of a line below the heading


@mpl.rc_context(STYLE)
def stages_figure(
    lines: Mapping[Line, Sequence[Point]],
    metric: str,
    *,
    heading: str,
    text: str,
    real: float | None = None,
    floor: float | None = None,
) -> Figure:
    """Draw the lines; points of cost 0 are the prior alone and stand at the left edge.

    `heading` names what limits the quality, `text` has the measurements that show it. `real` is the distance between
    two sets of photographs, `floor` the distance between the codec's reconstructions and photographs.
    """
    below = textwrap.wrap(text, TEXT_COLUMNS)
    figure = Figure(figsize=(WIDTH, 4.4 + 0.17 * len(below)), layout="constrained")
    axes = figure.subplots()
    looks = looks_of_lines({line: len(points) for line, points in lines.items()})
    solved = {line: kept for line, points in lines.items() if (kept := [p for p in points if p.cost > 0])}
    for line, points in solved.items():  # hollow where the same source is as good with fewer evaluations
        draw_lines(axes, {line: points}, looks)
    costs = [point.cost for points in solved.values() for point in points]
    edge = min(costs) / 2
    draw_alone(
        axes, {line: [p for p in points if p.cost == 0] for line, points in lines.items()}, looks, edge
    )
    values = [point.value for points in lines.values() for point in points]
    is_logarithmic = distance_axis(axes, values)
    levels = {
        "the codec's reconstructions": (floor, INK, (6, 2)),
        "photographs among themselves": (real, MUTED, (4, 3)),
    }
    for name, (value, colour, dashes) in levels.items():
        if value is not None and (value > 0 or not is_logarithmic):
            axes.axhline(value, color=colour, linewidth=1, dashes=dashes, label=name)
    doubling_axis(axes, [edge, *costs])
    axes.xaxis.set_major_locator(FixedLocator([edge, *sorted({*costs})]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: "prior alone" if value == edge else f"{value:g}")
    )
    axes.set_xlabel("evaluations of the flow model per image")
    axes.set_title(f"{metric}, lower is better", loc="left", fontsize=10, color=MUTED)
    figure.suptitle(heading + "\n" + "\n".join(below), x=0.01, ha="left", fontsize=9, color=INK)
    legend_below(figure)
    return figure


def draw_alone(
    axes: Axes, lines: Mapping[Line, Sequence[Point]], looks: dict[Line, Look], edge: float
) -> None:
    """Draw the prior alone as separate points, not joined to the line of its flow."""
    for line, points in lines.items():
        dots: dict[str, Any] = {"marker": looks[line].marker, "markersize": 5, "color": looks[line].colour}
        for point in points:
            axes.plot(edge, point.value, linestyle="", markerfacecolor="white", **dots)
            axes.vlines(edge, point.low, point.high, color=looks[line].colour, linewidth=1, alpha=0.6)
