"""Interactive curves: what the script of the page draws, as strict JSON.

A curve keeps at most a certain number of its points: of each stretch of equally many points the lowest and the highest,
at their places, so that a spike of one step is still there. Points that are NaN or infinite are listed apart; they
interrupt the line and are marked. The line of local means (`smooth`) is drawn over it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from lediflow.report.smoothing import finite, smooth, spans_decades, thin
from lediflow.tracking.event_log import Curve

MOST_POINTS, FEWEST_POINTS = 1200, 60  # of a curve
SMOOTHED_POINTS = 200
LISTED_FAULTS = 40  # points of a curve that are not finite, with their places; the others are only counted
FAULTS_IN_WORDS = 3
NOISY = 2.5  # a curve is noisy if all its ups and downs together are this many times its range
DIGITS = 5


@dataclass(kw_only=True)
class Line:
    """A curve of a chart."""

    name: str
    curve: Curve
    colour: int  # number of the page's colour, from 1; 0: the grey of a level to compare with
    is_dashed: bool = False
    rings: Sequence[float] = ()  # places where a ring is drawn, if the curve has a point there
    margins: Sequence[float] | None = None  # of each point, up and down

    @property
    def faults(self) -> str:
        """Which points are no finite numbers, in words; empty if all are finite."""
        places = np.flatnonzero(~np.isfinite(self.curve.values)).tolist()
        if not places:
            return ""
        shown = [
            f"{fault_name(float(self.curve.values[place]))} at {int(self.curve.images_seen[place]):,} images"
            for place in places[:FAULTS_IN_WORDS]
        ]
        more = f" and {len(places) - len(shown):,} more" if len(places) > len(shown) else ""
        return f"{self.name}: {', '.join(shown)}{more}"


@dataclass(kw_only=True)
class Chart:
    """An interactive plot of curves along the image clock, or along another axis."""

    title: str
    unit: str = ""
    lines: list[Line] = field(default_factory=list)
    axis: str = "images seen"
    place: str = "{} images"  # in words, of a number on the axis
    is_log_x: bool = False
    from_zero: bool = True  # the axis begins there
    ticks: Sequence[float] = ()  # places with a tick; empty: round ones

    @property
    def is_log(self) -> bool:
        """Whether a logarithmic axis shows the curves better."""
        return spans_decades([smooth(thin(finite(line.curve), SMOOTHED_POINTS)) for line in self.lines])


def charts_json(charts: Sequence[Chart], points: int) -> Markup:
    """The charts as JSON for a script element: strict, and without a character that could end the element.

    `points` is how many of all curves are kept; a hundred thousand take about 2 MB.
    """
    curves = sum(len(chart.lines) for chart in charts)
    most = max(FEWEST_POINTS, min(MOST_POINTS, points // max(1, curves)))
    text = json.dumps([chart_values(chart, most) for chart in charts], allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def chart_values(chart: Chart, most: int) -> dict[str, Any]:
    """What the script needs of a chart."""
    is_log = chart.is_log
    return {
        "title": chart.title,
        "unit": chart.unit,
        "log": is_log,
        "logX": chart.is_log_x,
        "axis": chart.axis,
        "place": chart.place,
        "fromZero": chart.from_zero,
        "ticks": list(chart.ticks),
        "lines": [line_values(line, most, is_log) for line in chart.lines],
    }


def line_values(line: Line, most: int, is_log: bool) -> dict[str, Any]:
    """What the script needs of a line."""
    kept = keep_extremes(line.curve, most)
    known = finite(line.curve)
    in_logs = is_log and bool((known.values > 0).all())
    smoothed = smooth(thin(known, SMOOTHED_POINTS), in_logs=in_logs) if is_noisy(known) else None
    faults = np.flatnonzero(~np.isfinite(line.curve.values))
    return {
        "name": line.name,
        "colour": line.colour,
        "dashed": line.is_dashed,
        "points": len(line.curve.values),
        "x": places(kept.images_seen),
        "y": numbers(kept.values),
        "smooth": smoothed and [places(smoothed.images_seen), numbers(smoothed.values)],
        "faults": [
            [int(line.curve.images_seen[place]), fault_name(float(line.curve.values[place]))]
            for place in faults[:LISTED_FAULTS].tolist()
        ],
        "rings": ring_points(known, line.rings),
        "margins": None if line.margins is None else [rounded(margin) for margin in line.margins],
    }


def is_noisy(curve: Curve) -> bool:
    """Whether the values go up and down so much that a line of means says more; False for a schedule."""
    length = float(np.abs(np.diff(curve.values)).sum())
    return len(curve.values) > 2 and length > NOISY * float(np.ptp(curve.values))


def keep_extremes(curve: Curve, most: int) -> Curve:
    """At most about `most` points: the first, the last, and the lowest and highest of each stretch between.

    Values that are not finite stay where the curve has room for all of its points, else one of each stretch that has
    some.
    """
    if len(curve.values) <= most:
        return curve
    kept = [0, len(curve.values) - 1]
    for stretch in np.array_split(np.arange(len(curve.values)), max(1, most // 3)):
        values = curve.values[stretch]
        is_finite = np.isfinite(values)
        if is_finite.any():
            known = stretch[is_finite]
            kept += [int(known[values[is_finite].argmin()]), int(known[values[is_finite].argmax()])]
        if not is_finite.all():
            kept.append(int(stretch[~is_finite][0]))
    chosen = np.unique(kept)
    return Curve(curve.images_seen[chosen], curve.values[chosen])


def ring_points(curve: Curve, places: Sequence[float]) -> list[list[float]]:
    """The points of a curve at these places, as far as there are some."""
    found = np.flatnonzero(np.isin(curve.images_seen, np.asarray(places)))
    return [
        [rounded(float(curve.images_seen[place])), rounded(float(curve.values[place]))] for place in found
    ]


def fault_name(value: float) -> str:
    """NaN, Infinity or -Infinity."""
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def places(images_seen: np.ndarray[Any, Any]) -> list[float]:
    """Places on the axis; whole numbers where they are large."""
    return [round(place) if place >= 1000 else rounded(place) for place in images_seen.tolist()]


def numbers(values: np.ndarray[Any, Any]) -> list[float | None]:
    """The values with DIGITS digits; None where one is not finite."""
    return [rounded(value) if np.isfinite(value) else None for value in values.tolist()]


def rounded(value: float) -> float:
    """The value with DIGITS digits, as an integer where it is one: shorter in JSON."""
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def by_name(
    curves: Mapping[str, Curve],
    lowest: Mapping[str, int],
    colours: Sequence[int],
    methods: Sequence[str] = (),
) -> list[Line]:
    """Lines of curves by their names, in the colours of their order; a second round of colours is dashed.

    The order is that of `methods`, if they are given: a method without a curve leaves its colour out.
    """
    places = {name: place for place, name in enumerate(methods or curves)}
    return [
        Line(
            name=name,
            curve=curve,
            colour=colours[places[name] % len(colours)],
            is_dashed=places[name] >= len(colours),
            rings=[lowest[name]] if name in lowest else [],
        )
        for name, curve in curves.items()
    ]
