"""Plots as files for papers and talks: PNG and SVG on white, in the colours of the report page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

COLOURS = ("#b4481f", "#33658f", "#4f7a3a", "#86599c", "#6b6b6b", "#a98300")
DASHES = ("-", "--", ":", "-.")  # the next where the colours are used up
SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7}
ABOVE: dict[str, Any] = SMALL | {"xytext": (4, 4)}
BELOW: dict[str, Any] = SMALL | {"xytext": (-4, -4), "ha": "right", "va": "top"}
INK, MUTED, RULE = "#1d1b19", "#6f6a64", "#dedad4"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "the same drawing twice is the same text",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
DOTS_PER_INCH = 160


class Point(NamedTuple):
    """One setting of a run's sampler."""

    cost: float
    value: float
    low: float  # ends of the value's interval
    high: float
    label: str  # beside the point


class Look(NamedTuple):
    """Of a line, the same in every panel."""

    colour: str
    dash: str
    is_above: bool  # where its points' labels are: neighbours with points at one place stay legible


@mpl.rc_context(STYLE)
def write_figure(figure: Figure, path: Path) -> None:
    """`path` without a suffix: becomes a .png and a .svg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=DOTS_PER_INCH, facecolor="white")
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(path.with_suffix(".svg"), facecolor="white", metadata=nothing)


@mpl.rc_context(STYLE)
def pareto_figure(
    panels: Mapping[str, Mapping[str, Sequence[Point]]], metric: str, real: float | None = None
) -> Figure:
    """Quality against each cost (the panels' names), a line for each run; hollow points are beaten by another one."""
    names = dict.fromkeys(name for lines in panels.values() for name in lines)
    looks = dict(zip(names, looks_of_lines(), strict=False))
    figure = Figure(figsize=(5.2 * len(panels), 4.2 + 0.1 * len(names)), layout="constrained")
    for axes, (cost, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        draw_lines(axes, lines, looks)
        if real is not None:
            axes.axhline(real, color=MUTED, linewidth=1, dashes=(4, 3), label="photographs among themselves")
        doubling_axis(axes, [point.cost for line in lines.values() for point in line])
        axes.set_xlabel(cost)
        axes.set_title(f"{metric}, lower is better", loc="left", fontsize=10, color=MUTED)
    legend_below(figure)
    return figure


def looks_of_lines() -> Iterator[Look]:
    """Without end: every colour drawn through, then dashed, then dotted ..."""
    sides = cycle((True, False))
    return (Look(colour, dash, next(sides)) for dash in cycle(DASHES) for colour in COLOURS)


def draw_lines(axes: Axes, lines: Mapping[str, Sequence[Point]], looks: dict[str, Look]) -> None:
    """Points with their intervals, joined in the order of their cost."""
    everyone = [point for line in lines.values() for point in line]
    for name, line in lines.items():
        points, (colour, dash, is_above) = sorted(line), looks[name]
        costs, values = [p.cost for p in points], [p.value for p in points]
        axes.plot(
            costs, values, marker="o", markersize=5, color=colour, linestyle=dash, linewidth=1.3, label=name
        )
        axes.vlines(
            costs, [p.low for p in points], [p.high for p in points], color=colour, linewidth=1, alpha=0.6
        )
        for p in points:
            if is_beaten(p, everyone):
                axes.plot(p.cost, p.value, "o", color=colour, markerfacecolor="white", markersize=5)
            axes.annotate(p.label, (p.cost, p.value), color=colour, **(ABOVE if is_above else BELOW))


def legend_below(figure: Figure) -> None:
    """Every line's name once, under the panels, in as many columns as have room."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    points_wide = 45 + 5 * max(len(name) for name in handles)  # of a column at this font size
    columns = max(1, int(72 * figure.get_figwidth() / points_wide))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        frameon=False,
        fontsize=9,
    )


def is_beaten(point: Point, others: Sequence[Point]) -> bool:
    """Another one is as good and cheaper, or better and as cheap."""
    return any(
        other.cost <= point.cost
        and other.value <= point.value
        and (other.cost, other.value) != (point.cost, point.value)
        for other in others
    )


def doubling_axis(axes: Axes, costs: Sequence[float]) -> None:
    """Doublings at equal distances."""
    low, high = (np.log2(limit) for limit in (min(costs), max(costs)))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(2.0 ** np.arange(np.floor(low), np.ceil(high) + 1))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(2 ** (low - 0.3), 2 ** (high + 0.6))


@mpl.rc_context(STYLE)
def prior_figure(
    z_edges: Float[np.ndarray, " edges"],
    z_counts: Float[np.ndarray, " bins"],
    predicted: Sequence[float],
    observed: Sequence[float],
    nominal: Sequence[float],
    covered: Sequence[float],
) -> Figure:
    """z-scores beside the normal density, sigma as it was said and found, shares inside central intervals."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    histogram, sigma, coverage = figure.subplots(1, 3)
    width = z_edges[1] - z_edges[0]
    middle = (z_edges[1:] + z_edges[:-1]) / 2
    histogram.stairs(z_counts[1:-1] / z_counts.sum() / width, z_edges, fill=True, color=COLOURS[0], alpha=0.5)
    histogram.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1.2)
    histogram.set_title("z = (image - mean) / sigma, and N(0, 1)", loc="left", fontsize=10, color=MUTED)
    beside_identity(sigma, predicted, observed, "sigma that the prior says", "root mean squared error")
    for axis, scale in ((sigma.xaxis, sigma.set_xscale), (sigma.yaxis, sigma.set_yscale)):
        scale("log", base=2)
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.set_minor_locator(NullLocator())
    beside_identity(coverage, nominal, covered, "central interval", "share of pixels inside")
    return figure


def beside_identity(axes: Axes, x: Sequence[float], y: Sequence[float], across: str, up: str) -> None:
    """A curve, and the line on which a calibrated prior's would lie."""
    ends = [min(*x, *y), max(*x, *y)]
    axes.plot(ends, ends, color=INK, linewidth=1, dashes=(4, 3))
    axes.plot(x, y, "o-", color=COLOURS[0], markersize=4)
    axes.set_xlabel(across)
    axes.set_title(f"{up}; dashed: calibrated", loc="left", fontsize=10, color=MUTED)
