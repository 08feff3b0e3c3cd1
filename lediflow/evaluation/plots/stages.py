"""Figure of `mode=stages`: distance against evaluations, one line for each source of z."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from lediflow.evaluation.plots.pareto import (
    ABOVE,
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
LABEL_POINTS = 12  # height of a label with its distance from the point, in typographic points


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
        draw_lines(axes, {line: points}, looks, is_labelled=False)
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
    draw_labels(axes, solved, looks)
    axes.set_xlabel("evaluations of the flow model per image")
    axes.set_title(f"{metric}, lower is better", loc="left", fontsize=10, color=MUTED)
    figure.suptitle(heading + "\n" + "\n".join(below), x=0.01, ha="left", fontsize=9, color=INK)
    legend_below(figure)
    return figure


def draw_labels(axes: Axes, lines: Mapping[Line, Sequence[Point]], looks: Mapping[Line, Look]) -> None:
    """Label points with their steps. Points whose labels would overlap share one, above the highest of them."""
    dots = [(point, looks[line].colour) for line, points in lines.items() for point in points]
    for cost in sorted({point.cost for point, _ in dots}):
        column = sorted((dot for dot in dots if dot[0].cost == cost), key=lambda dot: dot[0].value)
        for group in groups_of(column, axes):
            labels = sorted({point.label for point, _ in group}, key=lambda label: (len(label), label))
            colours = {colour for _, colour in group}
            colour = colours.pop() if len(colours) == 1 else INK
            axes.annotate(" / ".join(labels), (cost, group[-1][0].value), color=colour, **ABOVE)


def groups_of(column: Sequence[tuple[Point, str]], axes: Axes) -> list[list[tuple[Point, str]]]:
    """Split points of one cost, in rising order, where the distance to the next one has room for a label."""
    axes.autoscale_view()  # the limits, and so the distances, depend on all that was drawn
    room = LABEL_POINTS * axes.figure.dpi / 72
    groups: list[list[tuple[Point, str]]] = []
    below = -math.inf
    for point, colour in column:
        _, height = axes.transData.transform((point.cost, point.value))
        if height - below > room:
            groups.append([])
        groups[-1].append((point, colour))
        below = height
    return groups


def draw_alone(
    axes: Axes, lines: Mapping[Line, Sequence[Point]], looks: dict[Line, Look], edge: float
) -> None:
    """Draw the prior alone as separate points, not joined to the line of its flow."""
    for line, points in lines.items():
        dots: dict[str, Any] = {"marker": looks[line].marker, "markersize": 5, "color": looks[line].colour}
        for point in points:
            axes.plot(edge, point.value, linestyle="", markerfacecolor="white", **dots)
            axes.vlines(edge, point.low, point.high, color=looks[line].colour, linewidth=1, alpha=0.6)
