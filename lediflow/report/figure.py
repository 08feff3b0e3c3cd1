"""Figures of the page: inline SVG in the page's colours, drawn by matplotlib.

matplotlib draws with placeholder colours, which are then replaced by the page's CSS variables, so that one drawing
suits the light and the dark page. Text stays text. One unit of a figure is one CSS pixel, and figures are small
enough to be read on a phone. The plots themselves are in `training` and `quality`.
"""

import io
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lediflow.evaluation.plots.style import NO_METADATA, base_style
from lediflow.report.smoothing import LARGEST, SMALLEST

INK, MUTED, RULE = "#010101", "#020202", "#030303"  # placeholders, replaced in `page_svg`
SERIES = tuple(f"#0a0a{number:02d}" for number in range(1, 7))  # of methods, in the order of `methods`
CSS_COLOURS = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    placeholder: f"--series-{number}" for number, placeholder in enumerate(SERIES, start=1)
}
HEAT = "magma"
MIN_DEVIATION = 1e-6  # smaller deviations look the same, because the colour scale is logarithmic
# decorator: no warnings about ticks that would lie beyond the largest float64, which are not drawn
QUIET = np.errstate(over="ignore")
OUTLIERS = 0.005  # share of values at either end that an axis may leave out
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

    @QUIET
    def svg(self, description: str) -> Markup:
        """The drawing as an element of the page."""
        self.write_names()
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
        return page_svg(buffer.getvalue(), description)


def page_svg(svg: str, description: str) -> Markup:
    """matplotlib's file as an inline element in the page's colours and font; its width is set by the page's CSS."""
    svg = svg[svg.index("<svg") :]
    for placeholder, variable in CSS_COLOURS.items():
        svg = svg.replace(placeholder, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    label = f' role="img" aria-label="{escape(description)}"'
    return Markup(re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', lambda _: label, svg, count=1))


@QUIET
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
    """Lowest and highest value shown: the middle 99 % of 200 values or more, all of fewer, and a margin.

    They are finite and differ, also for the losses of a run that diverged, near the largest float64.
    """
    values = np.clip(values, SMALLEST if is_log else -LARGEST, LARGEST)
    outliers = OUTLIERS if values.size >= 1 / OUTLIERS else 0.0
    low, high = np.quantile(np.log(values) if is_log else values, (outliers, 1 - outliers))
    margin = 0.08 * (high - low) or (0.5 if is_log else 0.5 * abs(low) or 0.5)
    if is_log:
        ends = np.clip((low - margin, high + margin), np.log(SMALLEST / 10), np.log(LARGEST * 10))
        return float(np.exp(ends[0])), float(np.exp(ends[1]))
    return (0.0 if from_zero and low >= 0 else float(low - margin)), float(high + margin)


def plain_numbers(axis: Axis) -> None:
    """Labels like 0.03 instead of 3 x 10^-2, and none at minor ticks."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}".replace("-", "\N{MINUS SIGN}")))
    axis.set_minor_formatter(NullFormatter())


def spread(
    places: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf
) -> Float[np.ndarray, " labels"]:
    """The places moved so that neighbours are at least `gap` apart: each crowd is spread around its mean.

    Results lie between `low` and `high` where a crowd fits between them; if not, it starts at `low`.
    """
    crowds = [[int(index)] for index in np.argsort(places, kind="stable")]
    moved = np.clip(np.array(places, dtype=np.float64), low, high)
    while (touching := first_touching(crowds, moved, gap)) is not None:
        crowd = crowds[touching] + crowds.pop(touching + 1)
        crowds[touching] = crowd
        length = gap * (len(crowd) - 1)
        first = float(np.mean([places[index] for index in crowd])) - length / 2
        moved[crowd] = max(low, min(first, high - length)) + gap * np.arange(len(crowd))
    return moved


def first_touching(crowds: list[list[int]], places: Float[np.ndarray, " labels"], gap: float) -> int | None:
    """The first crowd that is closer than `gap` to the next; None if there is none."""
    for number, (crowd, following) in enumerate(pairwise(crowds)):
        if places[following[0]] - places[crowd[-1]] < gap - 1e-9:
            return number
    return None


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
