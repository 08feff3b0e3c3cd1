"""Plots as files for papers and talks: PNG and SVG on white, in the colours of the report page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

COLOURS = ("#b4481f", "#33658f", "#4f7a3a", "#86599c", "#6b6b6b", "#a98300")
INK, MUTED, RULE = "#1d1b19", "#6f6a64", "#dedad4"
STYLE = {
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


def write_figure(figure: Figure, path: Path) -> None:
    """`path` without a suffix: becomes a .png and a .svg."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=DOTS_PER_INCH, facecolor="white")
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(path.with_suffix(".svg"), facecolor="white", metadata=nothing)


@mpl.rc_context(STYLE)
def pareto_figure(
    panels: dict[str, dict[str, Sequence[Point]]], metric: str, real: float | None = None
) -> Figure:
    """Quality against each cost (the panels' names), a line for each run; hollow points are beaten by another one."""
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    for axes, (cost, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        draw_lines(axes, lines)
        if real is not None:
            axes.axhline(real, color=MUTED, linewidth=1, dashes=(4, 3), label="photographs among themselves")
        doubling_axis(axes, [point.cost for line in lines.values() for point in line])
        axes.set_xlabel(cost)
        axes.set_title(f"{metric}, lower is better", loc="left", fontsize=10, color=MUTED)
    axes.legend(frameon=False, fontsize=9)
    return figure


def draw_lines(axes: Axes, lines: dict[str, Sequence[Point]]) -> None:
    """Points with their intervals, joined in the order of their cost."""
    everyone = [point for line in lines.values() for point in line]
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        points = sorted(line)
        axes.plot(
            [p.cost for p in points], [p.value for p in points], color=colour, linewidth=1.3, label=name
        )
        for p in points:
            axes.plot([p.cost] * 2, [p.low, p.high], color=colour, linewidth=1, alpha=0.6)
            face = "white" if is_beaten(p, everyone) else colour
            axes.plot(p.cost, p.value, "o", color=colour, markerfacecolor=face, markersize=5)
            axes.annotate(
                p.label, (p.cost, p.value), (4, 4), textcoords="offset points", fontsize=7, color=MUTED
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
