"""The specification of dashboards as one HTML page, for a look at it without a server; no script, no network.

With a run, each panel shows the run's numbers and pictures, as the dashboard would.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from jinja2 import Environment, PackageLoader, StrictUndefined

from lediflow.dashboard.panels import Dashboard, Panel, Section
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import PICTURES, logged_pictures, numbers, standing_events
from lediflow.tracking.metrics import Values, value_of
from lediflow.tracking.tables import distinct_events, values_of

BUCKETS = 200  # along the x axis of a plot; the smallest and the largest value of each are drawn
NAMED = 6  # curves named below a plot
WIDTH, HEIGHT, MARGIN = 320.0, 150.0, 6.0  # of a plot

Points = Float[np.ndarray, "points 2"]  # images seen, value
Numbers = dict[str, Points]


class RunNumbers(NamedTuple):
    """What panels show of a run."""

    name: str
    numbers: Numbers
    pictures: dict[str, str]  # the newest of each name, as a data: URI


class Line(NamedTuple):
    """A curve, bar or point of a plot."""

    label: str
    path: str  # of an SVG


class Axes(NamedTuple):
    """What is written at the axes of a plot."""

    low: str = ""
    high: str = ""
    end: str = ""  # images seen at the right edge


class Drawn(NamedTuple):
    """The paths of a plot by the number's name, its axes, and how many values could not be drawn."""

    paths: Mapping[str, str] = MappingProxyType({})
    axes: Axes = Axes()
    left_out: int = 0


class Sketch(NamedTuple):
    """A panel as the page draws it."""

    title: str
    kind: str
    lines: list[Line]
    unnamed: int  # curves besides those that are named
    names: str  # the logged numbers
    axes: Axes
    unit: str
    left_out: int  # values that are not finite
    picture: str


def build_page(dashboards: Sequence[Dashboard], project: str, run: RunNumbers | None = None) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("lediflow.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    shown = [(dashboard, sketches(dashboard, run)) for dashboard in dashboards]
    page = environment.get_template("dashboard.html")
    return page.render(dashboards=shown, project=project, run=run, width=WIDTH, height=HEIGHT) + "\n"


def sketches(dashboard: Dashboard, run: RunNumbers | None) -> list[tuple[Section, list[Sketch]]]:
    """The panels of each section, as the page draws them."""
    values = dashboard.values
    return [
        (section, [sketch(panel, values, run) for panel in section.panels]) for section in dashboard.sections
    ]


# --- a run ---


def read_numbers(path: Path) -> RunNumbers:
    """The numbers and newest pictures of a run. UserError for a folder without an event log."""
    folder = RunFolder(path)
    events = distinct_events(standing_events(folder.events))
    if not events:
        raise UserError(f"--run={path} has no events; give the run folder of lediflow.train")
    found: dict[str, list[tuple[int, float]]] = {}
    pictures: dict[str, Path] = {}
    for event in events:
        for name, value in numbers(event["event"], values_of(event)):
            found.setdefault(name, []).append((event["images_seen"], value))
        for picture in logged_pictures(event, folder.root):
            if picture.path.is_file():
                pictures[f"{PICTURES}/{picture.name}"] = picture.path
    curves = {name: np.array(points, dtype=np.float64) for name, points in found.items()}
    shown = {key: png_uri(file) for key, file in pictures.items()}
    return RunNumbers(folder.root.resolve().name, curves, shown)


def png_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


# --- plots ---


def sketch(panel: Panel, values: Values, run: RunNumbers | None) -> Sketch:
    """A panel with the numbers of a run; without a run, empty axes and the names of its numbers."""
    known = run.numbers if run else {}
    curves = {name: known[name] for name in chosen(panel, known)}
    drawn: Drawn = DRAWING[panel.kind](panel, curves)
    lines = [Line(value_of(name, values).title, path) for name, path in drawn.paths.items()]
    return Sketch(
        title=panel.title,
        kind=panel.kind,
        lines=lines[:NAMED],
        unnamed=max(0, len(lines) - NAMED),
        names=", ".join(panel.numbers),
        axes=drawn.axes,
        unit=panel.unit(values),
        left_out=drawn.left_out,
        picture=(run.pictures if run else {}).get(panel.numbers[0], ""),
    )


def chosen(panel: Panel, known: Numbers) -> list[str]:
    """The names of a run's numbers that a panel shows."""
    if panel.regex is None:
        return [name for name in panel.numbers if name in known]
    return [name for name in known if re.match(panel.regex, name)]


def draw_curves(panel: Panel, curves: Numbers) -> Drawn:
    """A path for each curve; values that are not finite, or not positive on a logarithmic axis, are left out."""
    usable = {name: points[is_usable(points, panel.is_log)] for name, points in curves.items()}
    usable = {name: thin(points) for name, points in usable.items() if len(points)}
    left_out = sum(int((~is_usable(points, panel.is_log)).sum()) for points in curves.values())
    if not usable:
        return Drawn(left_out=left_out)
    places, found = np.concatenate([*usable.values()]).T
    x, y = Scale(places, WIDTH), Scale(found, HEIGHT, is_log=panel.is_log)
    paths = {
        name: "M" + "L".join(f"{x(at):.1f} {HEIGHT - y(value):.1f}" for at, value in doubled(points))
        for name, points in usable.items()
    }
    axes = Axes(figure(found.min()), figure(found.max()), f"{places.max():,.0f}")
    return Drawn(paths, axes, left_out)


def is_usable(points: Points, is_log: bool) -> np.ndarray:
    """Which points can be drawn."""
    return np.isfinite(points[:, 1]) & ((points[:, 1] > 0) | (not is_log))


def thin(points: Points) -> Points:
    """The points with the smallest and the largest value of each of BUCKETS buckets, in order."""
    if len(points) <= 2 * BUCKETS:
        return points
    kept: list[np.ndarray] = []
    for part in np.array_split(points, BUCKETS):
        places = sorted({int(part[:, 1].argmin()), int(part[:, 1].argmax())})
        kept.append(part[places])
    return np.concatenate(kept)


def doubled(points: Points) -> Points:
    """The points; a single one twice, since a path of one point is not visible without a second one."""
    return np.repeat(points, 2, axis=0) if len(points) == 1 else points


class Scale:
    """From a value to its place on an axis of this length."""

    def __init__(self, values: Float[np.ndarray, " points"], length: float, *, is_log: bool = False) -> None:
        self.change = math.log if is_log else float
        self.low = self.change(values.min())
        self.span = (self.change(values.max()) - self.low) or 1.0
        self.length = length - 2 * MARGIN

    def __call__(self, value: float) -> float:
        return MARGIN + (self.change(value) - self.low) / self.span * self.length


def draw_bars(panel: Panel, curves: Numbers) -> Drawn:
    """A bar for the last value of each number."""
    last = {name: float(points[-1, 1]) for name, points in curves.items() if math.isfinite(points[-1, 1])}
    high = max([0.0, *last.values()]) or 1.0
    step = WIDTH / len(panel.numbers)
    paths = {}
    for place, (name, value) in enumerate(last.items()):
        rise = max(value, 0) / high * (HEIGHT - MARGIN)
        paths[name] = f"M{(place + 0.2) * step:.1f} {HEIGHT}v{-rise:.1f}h{0.6 * step:.1f}V{HEIGHT}z"
    return Drawn(paths, Axes("0", figure(high)) if last else Axes(), len(curves) - len(last))


def draw_point(panel: Panel, curves: Numbers) -> Drawn:
    """The last value of the second number over that of the first: one point, as a run has one."""
    if len(curves) < 2:
        return Drawn()
    x, y = (float(points[-1, 1]) for points in curves.values())
    path = f"M{WIDTH / 2} {HEIGHT / 2}L{WIDTH / 2} {HEIGHT / 2}"
    return Drawn({panel.numbers[-1]: path}, Axes("", figure(y), figure(x)))


def draw_nothing(panel: Panel, curves: Numbers) -> Drawn:
    return Drawn()


DRAWING = {"curves": draw_curves, "bars": draw_bars, "points": draw_point, "pictures": draw_nothing}


def figure(value: float) -> str:
    return f"{value:.3g}"
