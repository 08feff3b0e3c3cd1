"""Plots as SVG that takes its colours from the page. The only home of matplotlib.

matplotlib draws with stand-in colours, which are then exchanged for the page's CSS variables: one drawing
is right on light and on dark paper. Text stays text. One unit of a figure is one CSS pixel, and figures are
small enough to be read on a telephone.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lediflow.report.content import BinPanel, Measurement, methods
from lediflow.report.curves import finite, smooth, spans_decades, spread, thin
from lediflow.report.markup import Html, attribute
from lediflow.tracking.event_log import Curve

INK, MUTED, RULE = "#010101", "#020202", "#030303"  # stand-ins: nobody ever sees these
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04")
CSS_COLOURS = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    stand_in: f"--series-{number}" for number, stand_in in enumerate(SERIES, start=1)
}
COSTS = {"evaluations": "evaluations of the flow model per image", "ms_per_image": "milliseconds per image"}
PHOTOGRAPHS = "photographs"  # the name of the line that no model needs to beat
RECONSTRUCTIONS = "codec"  # label of the codec's floor, which no model of its latents can beat
HEAT = "magma"
NO_DEVIATION = 1e-6  # what is smaller looks the same; a logarithm needs some end
OUTLIERS = 0.005  # the share of values at either end that an axis may leave out
MARKED_POINTS = 12  # a curve of no more has a mark at each
PIXELS_PER_INCH = 72
LETTER_WIDTH, LINE_HEIGHT = 6.6, 16  # of the labels, in pixels

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "the same drawing twice is the same text",
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
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
    """One small figure, with room on the right for the names of its lines."""

    def __init__(self, names: Iterable[str] = (), width: int = 440, height: int = 250):
        margin = 14 + LETTER_WIDTH * max(map(len, names), default=0)
        self.figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH))
        self.axes: Axes = self.figure.add_axes(
            (50 / width, 46 / height, 1 - (50 + margin) / width, 1 - 70 / height)
        )
        self.height = height - 70
        self.names: list[tuple[float, str, str]] = []  # where a line ends, what it is called, its colour

    def name_line(self, end: float, name: str, colour: str) -> None:
        """Remembers a name to be written where its line ends."""
        self.names.append((end, name, colour))

    def write_names(self) -> None:
        """The names beside the ends of their lines, moved apart where they would overlap."""
        to_axes = self.axes.transData + self.axes.transAxes.inverted()
        x = self.axes.get_xlim()[1]
        places = [float(to_axes.transform((x, end))[1]) for end, _, _ in self.names]
        for place, (_, name, colour) in zip(
            spread(places, LINE_HEIGHT / self.height), self.names, strict=True
        ):
            self.axes.text(1.02, place, name, color=colour, transform=self.axes.transAxes, va="center")

    def svg(self, description: str) -> Html:
        """The drawing as an element of the page."""
        self.write_names()
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        self.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        return page_svg(buffer.getvalue(), description)


@mpl.rc_context(STYLE)
def loss_plot(curves: dict[str, Curve], lowest: Mapping[str, int] | None = None) -> Html:
    """Curves along the image clock: smoothed, over their faint raw points; in logs if they span decades.

    Of a curve of few points each is marked; of one point the value is written beside it. `lowest` puts a ring on a
    curve at so many images seen, if it has a point there.
    """
    raw = {name: thin(finite(curve)) for name, curve in curves.items()}
    ends = {name: end_of(name if len(curves) > 1 else "", curve) for name, curve in raw.items()}
    plot = Plot(ends.values())
    is_log = spans_decades([smooth(curve) for curve in raw.values()])
    unit, of_unit = (1000, ", thousands") if seen(raw) >= 2000 else (1, "")
    for colour, (name, curve) in zip(SERIES, raw.items(), strict=False):
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
    """How many images the longest curve goes to."""
    return max((float(curve.images_seen[-1]) for curve in curves.values() if len(curve.values)), default=0.0)


def end_of(name: str, curve: Curve) -> str:
    """What is written where a curve ends: its name, and the value where it has only one."""
    return f"{name} {curve.values[0]:.3g}".strip() if len(curve.values) == 1 else name


@mpl.rc_context(STYLE)
def bin_plot(panel: BinPanel) -> Html:
    """A step for each bin that is not empty; in logs if the steps span decades."""
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
) -> Html:
    """How far the images are from photographs against what they cost, a line for each way of sampling.

    `cost` is one of COSTS; `real` is how far photographs are from other photographs, `floor` how far the
    codec's reconstructions are from them.
    """
    lines = quality_lines(measurements, cost)
    points = [point for line in lines.values() for point in line]
    colours = dict(zip(methods(measurements), SERIES, strict=False))
    plot = Plot([*lines, PHOTOGRAPHS])
    for name, line in lines.items():
        colour = colours[line[0].method]
        costs, distances = [point.cost for point in line], [point.distance for point in line]
        plot.axes.plot(costs, distances, color=colour, marker="o", markersize=6)
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
    """A measurement whose cost and quality are both known."""

    method: str
    cost: float
    distance: float
    margin: float | None


def quality_lines(measurements: Sequence[Measurement], cost: str) -> dict[str, list[QualityPoint]]:
    """The points of each line, cheapest first; the solver is named where a method has several."""
    lines: dict[str, list[QualityPoint]] = {}
    for row in measurements:
        paid = getattr(row, cost)
        if paid is not None and row.mmd is not None:
            point = QualityPoint(row.method, paid, row.mmd, row.mmd_margin)
            lines.setdefault(line_name(row, measurements), []).append(point)
    return {name: sorted(points, key=lambda point: point.cost) for name, points in lines.items()}


def line_name(row: Measurement, measurements: Sequence[Measurement]) -> str:
    """The method, and the solver too if the method was measured with others."""
    solvers = {other.solver for other in measurements if other.method == row.method}
    return f"{row.method}, {row.solver}" if len(solvers) > 1 else row.method


def distance_axis(axes: Axes, distances: Float[np.ndarray, " points"], metric: str) -> None:
    """The metric's name above its axis; the axis begins at zero unless decades are spanned."""
    value_axis(axes, distances, spans_decades([Curve(distances, distances)]), from_zero=True)
    axes.set_title(f"{metric}, lower is better", loc="left", x=-0.09, fontsize=12, color=MUTED)


def cost_axis(axes: Axes, costs: list[float], cost: str) -> None:
    """Doublings of the cost at equal distances; a count is marked where it was measured."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(costs) if cost == "evaluations" else LogLocator(base=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(COSTS[cost])


def value_axis(
    axes: Axes, values: Float[np.ndarray, " points"], is_log: bool, from_zero: bool = False
) -> None:
    """Room for all values but rare outliers, and few, plainly written ticks."""
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=8))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    plain_numbers(axes.yaxis)
    if values.size:
        axes.set_ylim(*value_limits(values, is_log, from_zero))


def value_limits(values: Float[np.ndarray, " points"], is_log: bool, from_zero: bool) -> tuple[float, float]:
    """Lowest and highest value shown: the middle 99 % of many, all of a few, and a margin."""
    outliers = OUTLIERS if values.size >= 1 / OUTLIERS else 0.0
    low, high = np.quantile(np.log(values) if is_log else values, (outliers, 1 - outliers))
    margin = 0.08 * (high - low) or (0.5 if is_log else 0.5 * abs(low) or 0.5)
    if is_log:
        return float(np.exp(low - margin)), float(np.exp(high + margin))
    return (0.0 if from_zero and low >= 0 else float(low - margin)), float(high + margin)


def plain_numbers(axis: Axis) -> None:
    """0.03 rather than 3 x 10^-2, and no labels between the ticks."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}".replace("-", "\N{MINUS SIGN}")))
    axis.set_minor_formatter(NullFormatter())


def heat(
    values: Float[np.ndarray, "height width"], low: float, high: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Deviations as colours, dark at `low` and bright at `high`; equal ratios look equally far apart."""
    low, high = max(low, NO_DEVIATION), max(high, NO_DEVIATION)
    share = np.log(np.maximum(values, low) / low) / max(np.log(high / low), np.finfo(float).tiny)
    return mpl.colormaps[HEAT](share, bytes=True)[..., :3]


def heat_gradient(stops: int = 9) -> str:
    """The colours of `heat` as a CSS gradient, for the legend."""
    colours = mpl.colormaps[HEAT](np.linspace(0, 1, stops), bytes=True)
    return f"linear-gradient(90deg, {', '.join(f'rgb({r} {g} {b})' for r, g, b, _ in colours.tolist())})"


def page_svg(svg: str, description: str) -> Html:
    """matplotlib's file as an inline element: the page's colours and font, as wide as there is room."""
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in CSS_COLOURS.items():
        svg = svg.replace(stand_in, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    label = attribute("role", "img") + attribute("aria-label", description)
    return Html(re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', lambda _: label, svg, count=1))
