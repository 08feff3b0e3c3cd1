"""The report's section on quality against cost: its plot and its table of measurements.

The table is plain text cells. The best quality is marked; a missing number is a dash.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from lediflow.evaluation.metrics import MAIN, Metric, shown_in
from lediflow.report.content import ReportData, SettingMeasurement, methods, temperature_text
from lediflow.report.figure import INK, MUTED, SERIES, STYLE, Plot, value_axis
from lediflow.report.smoothing import spans_decades
from lediflow.text import steps_text
from lediflow.tracking.event_log import Curve

COSTS = {"evaluations": "evaluations of the flow model per image", "ms_per_image": "milliseconds per image"}
PHOTOGRAPHS = "photographs"  # label of the distance between photographs, which no model needs to beat
# label of the distance between the codec's reconstructions and photographs, which no model of its latents can beat
RECONSTRUCTIONS = "codec"
DASHES = {"Solid": "-", "Dashed": "--", "Dotted": ":", "Dash-dotted": "-."}  # of solvers, by name of the dash
MISSING = "\N{EN DASH}"


@mpl.rc_context(STYLE)
def quality_plot(
    measurements: Sequence[SettingMeasurement],
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
    colours = dict(zip(methods(measurements), cycle(SERIES), strict=False))
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


def quality_lines(measurements: Sequence[SettingMeasurement], cost: str) -> dict[str, list[QualityPoint]]:
    """The points of each line by its name, cheapest first. Measurements without the cost or the MMD are left out."""
    lines: dict[str, list[QualityPoint]] = {}
    for row in measurements:
        paid = getattr(row, cost)
        if paid is not None and row.mmd is not None:
            point = QualityPoint(row.method, row.solver, paid, row.mmd, row.mmd_margin)
            lines.setdefault(line_name(row, measurements), []).append(point)
    return {name: sorted(points, key=lambda point: point.cost) for name, points in lines.items()}


def line_name(row: SettingMeasurement, measurements: Sequence[SettingMeasurement]) -> str:
    """The method, with the solver if the method was measured with several, and with a temperature other than 1."""
    solvers = {other.solver for other in measurements if other.method == row.method}
    solver = f", {row.solver}" if len(solvers) > 1 else ""
    return f"{row.method}{solver}{temperature_text(row)}"


def dashes_of_solvers(measurements: Sequence[SettingMeasurement]) -> dict[str, str]:
    """The name of each solver's dash, in the order measured; from the fifth solver on, dashes repeat."""
    solvers = dict.fromkeys(row.solver for row in measurements)
    return dict(zip(solvers, cycle(DASHES), strict=False))


def dash_legend(measurements: Sequence[SettingMeasurement]) -> str:
    """Which dash stands for which solver; empty if no method has several."""
    if all(line_name(row, measurements) == f"{row.method}{temperature_text(row)}" for row in measurements):
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


# --- table ---


@dataclass(frozen=True)
class Column:
    """A heading, the small print below it, and the number that a row has in this column."""

    title: str
    small_print: str
    number: Callable[[SettingMeasurement], float | None]
    digits: int
    best: Callable[..., float] | None = min  # which number is marked; None marks none
    # shown after the number, with a plus-minus
    margin: Callable[[SettingMeasurement], float | None] = lambda row: None


class Cell(NamedTuple):
    """A number as text, and its margin ("± 0.07") where it has one."""

    text: str
    margin: str = ""
    is_best: bool = False


class SettingRow(NamedTuple):
    """One way of sampling."""

    label: str
    cells: list[Cell]


class MethodRows(NamedTuple):
    """All rows of a method."""

    method: str
    rows: list[SettingRow]


class Table(NamedTuple):
    """The table as the page shows it."""

    columns: list[Column]
    groups: list[MethodRows]
    caption: str


def measurement_table(data: ReportData) -> Table:
    """A group of rows for each method; columns that no row has a number for are left out."""
    rows = data.measurements
    columns = [column for column in columns_of(data) if any(column.number(row) is not None for row in rows)]
    groups = [
        MethodRows(method, [table_row(row, columns, rows) for row in rows if row.method == method])
        for method in methods(rows)
    ]
    return Table(columns, groups, caption(data))


def columns_of(data: ReportData) -> list[Column]:
    """All possible columns, from left to right."""
    return [
        Column("evaluations", "per image", lambda row: row.evaluations, 0, best=None),
        Column("time", "ms per image", lambda row: row.ms_per_image, 1, best=None),
        Column(
            *title_and_small_print(data.mmd_name), lambda row: row.mmd, 2, margin=lambda row: row.mmd_margin
        ),
        Column("the same", "to reconstructions", lambda row: row.mmd_to_reconstructions, 2),
        *(metric_column(metric, data) for metric in shown_in("report") if metric is not MAIN),
    ]


def metric_column(metric: Metric, data: ReportData) -> Column:
    """The column of an entry of the table of metrics. Only names that depend on the features say which they are."""
    name = data.metric_names.get(metric.key, metric.name)
    heading = title_and_small_print(name) if metric.home else (name, "same features")
    best = min if metric.direction == "lower" else max
    return Column(*heading, lambda row: row.metrics.get(metric.key), metric.digits, best=best)


def title_and_small_print(metric: str) -> tuple[str, str]:
    """The metric's name, and the features in brackets after it: "MMD (X)" becomes ("MMD", "X")."""
    title, _, features = metric.partition(" (")
    return title, features.rstrip(")")


def table_row(
    row: SettingMeasurement, columns: Sequence[Column], rows: Sequence[SettingMeasurement]
) -> SettingRow:
    """The row's cells; its label names the solver where the table has several."""
    solver = f", {row.solver}" if len(solvers(rows)) > 1 else ""
    label = f"{steps_text(row.steps)}{solver}{temperature_text(row)}"
    return SettingRow(label, [cell(row, column, rows) for column in columns])


def cell(row: SettingMeasurement, column: Column, rows: Sequence[SettingMeasurement]) -> Cell:
    """One number; marked as best if no row has a better one."""
    number, margin = column.number(row), column.margin(row)
    if number is None:
        return Cell(MISSING)
    return Cell(
        text=signed(number, column.digits),
        margin="" if margin is None else f"\N{PLUS-MINUS SIGN} {margin:.{column.digits}f}",
        is_best=number == best_number(column, rows),
    )


def signed(number: float, digits: int = 2) -> str:
    """The number with a typographic minus sign: unbiased distances may be negative."""
    return f"{number:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def best_number(column: Column, rows: Sequence[SettingMeasurement]) -> float | None:
    """The column's best number; None if the column has no best, or all of several rows are equal."""
    if column.best is None:
        return None
    known = {number for row in rows if (number := column.number(row)) is not None}
    return None if len(rows) > 1 and len(known) < 2 else column.best(known)


def solvers(rows: Sequence[SettingMeasurement]) -> list[str]:
    """Every solver that was measured, sorted."""
    return sorted({row.solver for row in rows})


def caption(data: ReportData) -> str:
    """How the numbers were measured and how to read them."""
    measured = f"{data.images_measured:,} generated images per row. " if data.images_measured else ""
    real = (
        ""
        if data.real_mmd is None
        else f" Photographs against other photographs: {signed(round(data.real_mmd, 2) + 0.0)}."
    )
    solver = f"Solver: {solvers(data.measurements)[0]}. " if len(solvers(data.measurements)) == 1 else ""
    floor = "" if data.codec_floor is None else f" The codec's reconstructions: {data.codec_floor:.2f}."
    others = "".join(f" {sentence}." for sentence in data.left_out)
    return f"{measured}{solver}Distances: lower is better; the best quality is bold.{real}{floor}{others}"
