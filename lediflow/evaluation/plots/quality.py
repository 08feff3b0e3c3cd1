"""Figures of quality against cost: Pareto panels of `mode=metrics` and `mode=grid`, and the figure of `mode=stages`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from lediflow.evaluation.plots.points import CostLine, CostPoint, is_beaten
from lediflow.evaluation.plots.style import COLOURS, INK, MUTED, STYLE

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")
SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7}
ABOVE: dict[str, Any] = SMALL | {"xytext": (4, 4)}
BELOW: dict[str, Any] = SMALL | {"xytext": (-4, -4), "ha": "right", "va": "top"}
DECADE = 10
STAGES_WIDTH, TEXT_COLUMNS = 7.2, 98  # inches; characters of a line below the heading
LABEL_POINTS = 12  # height of a label with its distance from the point, in typographic points


class Look(NamedTuple):
    """How a line is drawn, the same in every panel."""

    colour: str
    dash: str
    marker: str
    is_above: bool  # labels above or below their points: alternates, so that coinciding points stay legible


@mpl.rc_context(STYLE)
def pareto_figure(
    panels: Mapping[str, Mapping[CostLine, Sequence[CostPoint]]],
    metric: str,
    real: float | None = None,
) -> Figure:
    """One panel for each cost (the keys of `panels`). Points that another point dominates are hollow.

    `real` is the distance between two sets of photographs.
    """
    lengths = {line: len(points) for lines in panels.values() for line, points in lines.items()}
    looks = looks_of_lines(lengths)
    figure = Figure(figsize=(5.2 * len(panels), 4.2 + 0.1 * len(lengths)), layout="constrained")
    for axes, (cost, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        draw_lines(axes, lines, looks)
        points = [point for line in lines.values() for point in line]
        is_logarithmic = distance_axis(axes, [point.value for point in points])
        if real is not None and (real > 0 or not is_logarithmic):
            axes.axhline(real, color=MUTED, linewidth=1, dashes=(4, 3), label="photographs among themselves")
        doubling_axis(axes, [point.cost for point in points])
        axes.set_xlabel(cost)
        axes.set_title(f"{metric}, lower is better", loc="left", fontsize=10, color=MUTED)
    legend_below(figure)
    return figure


@mpl.rc_context(STYLE)
def stages_figure(
    lines: Mapping[CostLine, Sequence[CostPoint]],
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
    figure = Figure(figsize=(STAGES_WIDTH, 4.4 + 0.17 * len(below)), layout="constrained")
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


# --- parts of figures ---


def looks_of_lines(lengths: Mapping[CostLine, int]) -> dict[CostLine, Look]:
    """A colour for each run; when colours are used up, the dash changes too.

    `lengths` has the number of points of each line: a single point needs no dash, so longer lines choose first.
    """
    runs, variants = (
        numbered(parts) for parts in ([line.run for line in lengths], [x.variant for x in lengths])
    )
    solvers = numbered(line.solver for line in sorted(lengths, key=lambda line: lengths[line] == 1))
    looks: dict[CostLine, Look] = {}
    for number, line in enumerate(lengths):
        turn, colour = divmod(runs[line.run], len(COLOURS))
        dash = DASHES[(turn + solvers[line.solver]) % len(DASHES)]
        marker = MARKERS[variants[line.variant] % len(MARKERS)]
        looks[line] = Look(COLOURS[colour], dash, marker, is_above=number % 2 == 0)
    return looks


def numbered(items: Iterable[str]) -> dict[str, int]:
    """Each distinct item with its place in the order of first appearance."""
    return {item: place for place, item in enumerate(dict.fromkeys(items))}


def distance_axis(axes: Axes, values: Sequence[float]) -> bool:
    """Make the y axis logarithmic if all values are positive and span a decade; returns whether it is.

    Unbiased distances may be 0 or negative.
    """
    if min(values) <= 0 or max(values) < DECADE * min(values):
        return False
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    return True


def draw_lines(
    axes: Axes,
    lines: Mapping[CostLine, Sequence[CostPoint]],
    looks: Mapping[CostLine, Look],
    *,
    is_labelled: bool = True,
) -> None:
    """Draw points with their intervals, joined in the order of their cost, each with its label unless left out."""
    all_points = [point for points in lines.values() for point in points]
    for line, unsorted in lines.items():
        points, (colour, dash, marker, is_above) = sorted(unsorted), looks[line]
        costs, values = [p.cost for p in points], [p.value for p in points]
        dots: dict[str, Any] = {"marker": marker, "markersize": 5, "color": colour}
        axes.plot(costs, values, linestyle=dash, linewidth=1.3, label=line.name, **dots)
        axes.vlines(
            costs, [p.low for p in points], [p.high for p in points], color=colour, linewidth=1, alpha=0.6
        )
        for p in points:
            if is_beaten(p, all_points):
                axes.plot(p.cost, p.value, linestyle="", markerfacecolor="white", **dots)
            if is_labelled:
                axes.annotate(p.label, (p.cost, p.value), color=colour, **(ABOVE if is_above else BELOW))


def legend_below(figure: Figure) -> None:
    """Each line's name once, below the panels, in as many columns as fit."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    points_wide = 45 + 5 * max(len(name) for name in handles)  # width of a column at this font size
    columns = max(1, int(72 * figure.get_figwidth() / points_wide))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        frameon=False,
        fontsize=9,
    )


def doubling_axis(axes: Axes, costs: Sequence[float]) -> None:
    """Make the x axis logarithmic, with a tick at each power of two around all costs, or at more where few are."""
    low, high = (np.log2(limit) for limit in (min(costs), max(costs)))
    axes.set_xscale("log", base=2)
    powers = 2.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
    inside = [tick for tick in powers if low - 0.3 <= np.log2(tick) <= high + 0.6]
    more = [1.5 * powers] if len(inside) < 2 else []
    axes.xaxis.set_major_locator(FixedLocator(sorted(np.concatenate([powers, *more]))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(2 ** (low - 0.3), 2 ** (high + 0.6))


def draw_labels(
    axes: Axes, lines: Mapping[CostLine, Sequence[CostPoint]], looks: Mapping[CostLine, Look]
) -> None:
    """Label points with their steps. Points whose labels would overlap share one, above the highest of them."""
    dots = [(point, looks[line].colour) for line, points in lines.items() for point in points]
    for cost in sorted({point.cost for point, _ in dots}):
        column = sorted((dot for dot in dots if dot[0].cost == cost), key=lambda dot: dot[0].value)
        for group in groups_of(column, axes):
            labels = sorted({point.label for point, _ in group}, key=lambda label: (len(label), label))
            colours = {colour for _, colour in group}
            colour = colours.pop() if len(colours) == 1 else INK
            axes.annotate(" / ".join(labels), (cost, group[-1][0].value), color=colour, **ABOVE)


def groups_of(column: Sequence[tuple[CostPoint, str]], axes: Axes) -> list[list[tuple[CostPoint, str]]]:
    """Split points of one cost, in rising order, where the distance to the next one has room for a label."""
    axes.autoscale_view()  # the limits, and so the distances, depend on all that was drawn
    room = LABEL_POINTS * axes.figure.dpi / 72
    groups: list[list[tuple[CostPoint, str]]] = []
    below = -math.inf
    for point, colour in column:
        _, height = axes.transData.transform((point.cost, point.value))
        if height - below > room:
            groups.append([])
        groups[-1].append((point, colour))
        below = height
    return groups


def draw_alone(
    axes: Axes, lines: Mapping[CostLine, Sequence[CostPoint]], looks: dict[CostLine, Look], edge: float
) -> None:
    """Draw the prior alone as separate points, not joined to the line of its flow."""
    for line, points in lines.items():
        dots: dict[str, Any] = {"marker": looks[line].marker, "markersize": 5, "color": looks[line].colour}
        for point in points:
            axes.plot(edge, point.value, linestyle="", markerfacecolor="white", **dots)
            axes.vlines(edge, point.low, point.high, color=looks[line].colour, linewidth=1, alpha=0.6)
