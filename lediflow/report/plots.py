"""Plots as inline SVG in the colours of the page. In this package, only this module imports matplotlib.

matplotlib draws with placeholder colours, which are then replaced by the page's CSS variables, so that one drawing
suits the light and the dark page. Text stays text. One unit of a figure is one CSS pixel, and figures are small
enough to be read on a phone.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lediflow.evaluation.plots.style import NO_METADATA, base_style
from lediflow.report.content import BinPanel, Measurement, methods
from lediflow.report.curves import finite, smooth, spans_decades, spread, thin
from lediflow.tracking.event_log import Curve

INK, MUTED, RULE = "#010101", "#020202", "#030303"  # placeholders, replaced in `page_svg`
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04")  # of methods, in the order of `methods`
OTHER_SERIES = SERIES[2:]  # of curves that are not methods
CSS_COLOURS = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    placeholder: f"--series-{number}" for number, placeholder in enumerate(SERIES, start=1)
}
COSTS = {"evaluations": "evaluations of the flow model per image", "ms_per_image": "milliseconds per image"}
PHOTOGRAPHS = "photographs"  # label of the distance between photographs, which no model needs to beat
# label of the distance between the codec's reconstructions and photographs, which no model of its latents can beat
RECONSTRUCTIONS = "codec"
HEAT = "magma"
MIN_DEVIATION = 1e-6  # smaller deviations look the same, because the colour scale is logarithmic
OUTLIERS = 0.005  # share of values at either end that an axis may leave out
MARKED_POINTS = 12  # curves with at most this many points have a mark at each point
DASHES = {"Solid": "-", "Dashed": "--", "Dotted": ":", "Dash-dotted": "-."}  # of solvers, by name of the dash
PIXELS_PER_INCH = 72
LETTER_WIDTH, LINE_HEIGHT = 6.6, 16  # of the labels, in pixels
# margins around the axes, and the distance of a label from the end of its line, in pixels
LEFT, BELOW, ABOVE, ABOVE_TITLED, GAP = 46, 46, 12, 32, 11

STYLE = base_style(INK, MUTED, RULE) | {
    "font.size": 12,
    "axes.spines.left": False,
    "axes.grid.axis": "y",
    "grid.linewidth": 1,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}


class Plot:
    """One small figure, with room on the right for the names of its lines. Sizes in pixels."""

    def __init__(self, names: Iterable[str] = (), *, has_title: bool = False, width: int = 400):
        names = list(names)
        above = ABOVE_TITLED if has_title else ABOVE
        right = 3 + GAP + LETTER_WIDTH * max(map(len, names), default=0)
        self.axes_height = max(180, LINE_HEIGHT * len(names))
        height = self.axes_height + above + BELOW
        self.figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH))
        self.axes: Axes = self.figure.add_axes(
            (LEFT / width, BELOW / height, 1 - (LEFT + right) / width, self.axes_height / height)
        )
        self.names: list[tuple[float, str, str]] = []  # value at the line's end, name, colour

    def name_line(self, end: float, name: str, colour: str) -> None:
        """Write `name` at the end of a line, once the axes' limits are known."""
        self.names.append((end, name, colour))

    def write_names(self) -> None:
        """Write the names at the ends of their lines, moved apart where they would overlap."""
        to_axes = self.axes.transData + self.axes.transAxes.inverted()
        x = self.axes.get_xlim()[1]
        ends = [float(to_axes.transform((x, end))[1]) for end, _, _ in self.names]
        half = LINE_HEIGHT / self.axes_height / 2
        places = spread(ends, 2 * half, low=half, high=1 - half / 2)
        for place, (_, name, colour) in zip(places, self.names, strict=True):
            self.axes.annotate(
                name,
                (1, place),
                (GAP, 0),
                "axes fraction",
                textcoords="offset points",
                color=colour,
                va="center",
            )

    def svg(self, description: str) -> Markup:
        """The drawing as an element of the page."""
        self.write_names()
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
        return page_svg(buffer.getvalue(), description)


@mpl.rc_context(STYLE)
def loss_plot(
    curves: dict[str, Curve], lowest: Mapping[str, int] | None = None, colours: Sequence[str] = SERIES
) -> Markup:
    """Smoothed curves along the image clock, over their faint raw points; logarithmic if they span decades.

    The points of a curve with few points are marked; a single point is labelled with its value. `lowest` maps a curve's
    name to images seen, where a ring is drawn if the curve has a point there.
    """
    raw = {name: thin(finite(curve)) for name, curve in curves.items()}
    ends = {name: end_of(name if len(curves) > 1 else "", curve) for name, curve in raw.items()}
    plot = Plot(ends.values())
    is_log = spans_decades([smooth(curve) for curve in raw.values()])
    unit, of_unit = (1000, ", thousands") if seen(raw) >= 2000 else (1, "")
    for colour, (name, curve) in zip(colours, raw.items(), strict=False):
        smoothed = smooth(curve, in_logs=is_log)
        plot.axes.plot(curve.images_seen / unit, curve.values, color=colour, alpha=0.25, linewidth=1)
        plot.axes.plot(smoothed.images_seen / unit, smoothed.values, color=colour)
        if len(curve.values) <= MARKED_POINTS:
            x = curve.images_seen / unit
            plot.axes.plot(
                x, curve.values, color=colour, marker="o", markersize=5, linewidth=0, clip_on=False
            )
        ring(plot.axes, curves[name], (lowest or {}).get(name), unit, colour)
        if ends[name] and smoothed.values.size:
            plot.name_line(float(smoothed.values[-1]), ends[name], colour)
    value_axis(plot.axes, np.concatenate([curve.values for curve in raw.values()]), is_log)
    plot.axes.margins(x=0.0)
    plot.axes.set_xlim(left=0)
    plot.axes.set_xlabel(f"images seen{of_unit}")
    plot.axes.xaxis.set_major_locator(MaxNLocator(5))
    plot.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    return plot.svg("Training curve: " + ", ".join(curves))


def ring(axes: Axes, curve: Curve, images_seen: int | None, unit: int, colour: str) -> None:
    """Draw a ring around the point of a curve at `images_seen`, if there is one."""
    at = curve.images_seen == images_seen
    axes.plot(
        curve.images_seen[at] / unit, curve.values[at], color=colour, marker="o", markersize=10, linewidth=0,
        markerfacecolor="none", markeredgewidth=2, clip_on=False,
    )  # fmt: skip


def seen(curves: dict[str, Curve]) -> float:
    """Images seen at the end of the longest curve."""
    return max((float(curve.images_seen[-1]) for curve in curves.values() if len(curve.values)), default=0.0)


def end_of(name: str, curve: Curve) -> str:
    """The label at the end of a curve: its name, and its value if it has only one point."""
    return f"{name} {curve.values[0]:.3g}".strip() if len(curve.values) == 1 else name


@mpl.rc_context(STYLE)
def bin_plot(panel: BinPanel) -> Markup:
    """A step for each bin that is not empty; logarithmic if the means span decades."""
    plot = Plot(panel.means if len(panel.means) > 1 else ())
    values = np.concatenate([*panel.means.values()])
    known = values[np.isfinite(values)]
    for colour, (name, means) in zip(SERIES, panel.means.items(), strict=False):
        plot.axes.stairs(means, panel.edges, color=colour, baseline=None, linewidth=2)
        if len(panel.means) > 1 and np.isfinite(means).any():
            plot.name_line(float(means[np.isfinite(means)][-1]), name, colour)
    value_axis(plot.axes, known, spans_decades([Curve(known, known)]))
    if panel.is_doubling:
        plot.axes.set_xscale("log", base=2)
    plot.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    plot.axes.margins(x=0.0)
    plot.axes.set_xlabel(panel.axis)
    return plot.svg(f"{panel.title}: {', '.join(panel.means)}")


@mpl.rc_context(STYLE)
def quality_plot(
    measurements: Sequence[Measurement],
    cost: str,
    metric: str,
    real: float | None = None,
    floor: float | None = None,
) -> Markup:
    """Distance to photographs against `cost`, a line for each method and solver.

    `cost` is a key of COSTS. `real` is the distance between two sets of photographs, `floor` the distance between
    the codec's reconstructions and photographs. A method has one colour, a solver one dash (see `dash_legend`).
    """
    lines = quality_lines(measurements, cost)
    points = [point for line in lines.values() for point in line]
    colours = dict(zip(methods(measurements), SERIES, strict=False))
    dashes = {solver: DASHES[dash] for solver, dash in dashes_of_solvers(measurements).items()}
    plot = Plot([*lines, PHOTOGRAPHS], has_title=True)
    for name, line in lines.items():
        colour, dash = colours[line[0].method], dashes[line[0].solver]
        costs, distances = [point.cost for point in line], [point.distance for point in line]
        plot.axes.plot(costs, distances, color=colour, linestyle=dash, marker="o", markersize=6)
        margins = [point.margin or 0.0 for point in line]
        plot.axes.errorbar(costs, distances, margins, fmt="none", ecolor=colour, elinewidth=1.2, alpha=0.6)
        plot.name_line(distances[-1], name, colour)
    levels = {PHOTOGRAPHS: (real, MUTED), RECONSTRUCTIONS: (floor, INK)}
    known = [point.distance for point in points]
    for name, (level, colour) in levels.items():
        if level is not None:
            plot.axes.axhline(level, color=colour, linewidth=1.2, dashes=(3, 3))
            plot.name_line(level, name, colour)
            known.append(level)
    distance_axis(plot.axes, np.array(known), metric)
    cost_axis(plot.axes, sorted({point.cost for point in points}), cost)
    return plot.svg(f"{metric} against {COSTS[cost]}")


class QualityPoint(NamedTuple):
    """A measurement with known cost and quality."""

    method: str
    solver: str
    cost: float
    distance: float
    margin: float | None


def quality_lines(measurements: Sequence[Measurement], cost: str) -> dict[str, list[QualityPoint]]:
    """The points of each line by its name, cheapest first. Measurements without the cost or the MMD are left out."""
    lines: dict[str, list[QualityPoint]] = {}
    for row in measurements:
        paid = getattr(row, cost)
        if paid is not None and row.mmd is not None:
            point = QualityPoint(row.method, row.solver, paid, row.mmd, row.mmd_margin)
            lines.setdefault(line_name(row, measurements), []).append(point)
    return {name: sorted(points, key=lambda point: point.cost) for name, points in lines.items()}


def line_name(row: Measurement, measurements: Sequence[Measurement]) -> str:
    """The method, and the solver if the method was measured with several."""
    solvers = {other.solver for other in measurements if other.method == row.method}
    return f"{row.method}, {row.solver}" if len(solvers) > 1 else row.method


def dashes_of_solvers(measurements: Sequence[Measurement]) -> dict[str, str]:
    """The name of each solver's dash, in the order measured; from the fifth solver on, dashes repeat."""
    solvers = dict.fromkeys(row.solver for row in measurements)
    return dict(zip(solvers, cycle(DASHES), strict=False))


def dash_legend(measurements: Sequence[Measurement]) -> str:
    """Which dash stands for which solver; empty if no method has several."""
    if all(line_name(row, measurements) == row.method for row in measurements):
        return ""
    return " ".join(f"{dash} lines: {solver}." for solver, dash in dashes_of_solvers(measurements).items())


def distance_axis(axes: Axes, distances: Float[np.ndarray, " points"], metric: str) -> None:
    """The metric's name above its axis; the axis starts at zero unless the distances span decades."""
    value_axis(axes, distances, spans_decades([Curve(distances, distances)]), from_zero=True)
    axes.set_title(f"{metric}, lower is better", loc="left", x=0.0, pad=14, fontsize=12, color=MUTED)


def cost_axis(axes: Axes, costs: list[float], cost: str) -> None:
    """A logarithmic axis of base 2; evaluations have a tick where they were measured."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(costs) if cost == "evaluations" else LogLocator(base=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(COSTS[cost])


def value_axis(
    axes: Axes, values: Float[np.ndarray, " points"], is_log: bool, from_zero: bool = False
) -> None:
    """Limits that show all values but rare outliers, and few ticks with plain numbers."""
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    plain_numbers(axes.yaxis)
    if values.size:
        axes.set_ylim(*value_limits(values, is_log, from_zero))


def value_limits(values: Float[np.ndarray, " points"], is_log: bool, from_zero: bool) -> tuple[float, float]:
    """Lowest and highest value shown: the middle 99 % of 200 values or more, all of fewer, and a margin."""
    outliers = OUTLIERS if values.size >= 1 / OUTLIERS else 0.0
    low, high = np.quantile(np.log(values) if is_log else values, (outliers, 1 - outliers))
    margin = 0.08 * (high - low) or (0.5 if is_log else 0.5 * abs(low) or 0.5)
    if is_log:
        return float(np.exp(low - margin)), float(np.exp(high + margin))
    return (0.0 if from_zero and low >= 0 else float(low - margin)), float(high + margin)


def plain_numbers(axis: Axis) -> None:
    """Labels like 0.03 instead of 3 x 10^-2, and none at minor ticks."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}".replace("-", "\N{MINUS SIGN}")))
    axis.set_minor_formatter(NullFormatter())


def heat(
    values: Float[np.ndarray, "height width"], low: float, high: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Deviations as colours on a logarithmic scale, dark at `low` and bright at `high`."""
    low, high = max(low, MIN_DEVIATION), max(high, MIN_DEVIATION)
    share = np.log(np.maximum(values, low) / low) / max(np.log(high / low), np.finfo(float).tiny)
    return mpl.colormaps[HEAT](share, bytes=True)[..., :3]


def heat_gradient(stops: int = 9) -> str:
    """The colours of `heat` as a CSS gradient, for the legend."""
    colours = mpl.colormaps[HEAT](np.linspace(0, 1, stops), bytes=True)
    return f"linear-gradient(90deg, {', '.join(f'rgb({r} {g} {b})' for r, g, b, _ in colours.tolist())})"


def page_svg(svg: str, description: str) -> Markup:
    """matplotlib's file as an inline element in the page's colours and font; its width is set by the page's CSS."""
    svg = svg[svg.index("<svg") :]
    for placeholder, variable in CSS_COLOURS.items():
        svg = svg.replace(placeholder, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    label = f' role="img" aria-label="{escape(description)}"'
    return Markup(re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', lambda _: label, svg, count=1))
