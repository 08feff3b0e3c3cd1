"""The report's table of measurements as plain text cells. The best quality is marked; a missing number is a dash."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lediflow.evaluation.metrics import MAIN, Metric, shown_in
from lediflow.report.content import Measurement, ReportData, methods

MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A heading, the small print below it, and the number that a row has in this column."""

    title: str
    small_print: str
    number: Callable[[Measurement], float | None]
    digits: int
    best: Callable[..., float] | None = min  # which number is marked; None marks none
    # shown after the number, with a plus-minus
    margin: Callable[[Measurement], float | None] = lambda row: None


class Cell(NamedTuple):
    """A number as text, and its margin ("± 0.07") where it has one."""

    text: str
    margin: str = ""
    is_best: bool = False


class Row(NamedTuple):
    """One way of sampling."""

    label: str
    cells: list[Cell]


class Group(NamedTuple):
    """All rows of a method."""

    method: str
    rows: list[Row]


class Table(NamedTuple):
    """The table as the page shows it."""

    columns: list[Column]
    groups: list[Group]
    caption: str


def measurement_table(data: ReportData) -> Table:
    """A group of rows for each method; columns that no row has a number for are left out."""
    rows = data.measurements
    columns = [column for column in columns_of(data) if any(column.number(row) is not None for row in rows)]
    groups = [
        Group(method, [table_row(row, columns, rows) for row in rows if row.method == method])
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


def table_row(row: Measurement, columns: Sequence[Column], rows: Sequence[Measurement]) -> Row:
    """The row's cells; its label names the solver where the table has several."""
    steps = "1 step" if row.steps == 1 else f"{row.steps} steps"
    solver = f", {row.solver}" if len(solvers(rows)) > 1 else ""
    return Row(steps + solver, [cell(row, column, rows) for column in columns])


def cell(row: Measurement, column: Column, rows: Sequence[Measurement]) -> Cell:
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


def best_number(column: Column, rows: Sequence[Measurement]) -> float | None:
    """The column's best number; None if the column has no best, or all of several rows are equal."""
    if column.best is None:
        return None
    known = {number for row in rows if (number := column.number(row)) is not None}
    return None if len(rows) > 1 and len(known) < 2 else column.best(known)


def solvers(rows: Sequence[Measurement]) -> list[str]:
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
    return f"{measured}{solver}Distances: lower is better; the best quality is bold.{real}{floor}"
