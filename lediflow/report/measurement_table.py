"""The report's table of measurements. The best quality stands out; a missing number is a dash."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lediflow.report.content import Measurement, ReportData, methods
from lediflow.report.markup import Html, element

MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Column:
    """A heading, the small print under it, and the number that a row has there."""

    title: str
    small_print: str
    number: Callable[[Measurement], float | None]
    digits: int
    best: Callable[..., float] | None = min  # which number is worth marking
    margin: Callable[[Measurement], float | None] = lambda row: (
        None
    )  # that stands after a sign of plus or minus


def measurement_table(data: ReportData) -> Html:
    """Every way of sampling that was measured, a group of rows for each method, with a caption."""
    rows = data.measurements
    columns = [column for column in columns_of(data) if any(column.number(row) is not None for row in rows)]
    heading = element("thead", element("tr", element("th"), *map(heading_cell, columns)))
    groups = (
        method_rows(method, place, columns, rows) for place, method in enumerate(methods(rows), start=1)
    )
    table = element("div", element("table", heading, *groups), class_="scroll")
    return element("figure", table, element("figcaption", caption(data)))


def columns_of(data: ReportData) -> list[Column]:
    """The columns there can be, left to right."""
    return [
        Column("evaluations", "per image", lambda row: row.evaluations, 0, best=None),
        Column("time", "ms per image", lambda row: row.ms_per_image, 1, best=None),
        Column(
            *title_and_small_print(data.mmd_name), lambda row: row.mmd, 2, margin=lambda row: row.mmd_margin
        ),
        Column("the same", "to reconstructions", lambda row: row.mmd_to_reconstructions, 2),
        Column(*title_and_small_print(data.frechet_name), lambda row: row.frechet, 1),
        Column("precision", "same features", lambda row: row.precision, 2, best=max),
        Column("recall", "same features", lambda row: row.recall, 2, best=max),
    ]


def title_and_small_print(metric: str) -> tuple[str, str]:
    """What stands before the brackets of a metric's name, and what stands inside them."""
    title, _, features = metric.partition(" (")
    return title, features.rstrip(")")


def heading_cell(column: Column) -> Html:
    """A column's title over its small print."""
    return element("th", column.title, element("small", column.small_print), scope="col")


def method_rows(method: str, place: int, columns: Sequence[Column], rows: Sequence[Measurement]) -> Html:
    """The rows of one method under its name, in its colour."""
    span = len(columns) + 1
    name = element("th", method, class_=f"series-{place}", colspan=span, scope="rowgroup")
    own = (table_row(row, columns, rows) for row in rows if row.method == method)
    return element("tbody", element("tr", name), *own)


def table_row(row: Measurement, columns: Sequence[Column], rows: Sequence[Measurement]) -> Html:
    """One way of sampling."""
    steps = "1 step" if row.steps == 1 else f"{row.steps} steps"
    solver = f", {row.solver}" if len(solvers(rows)) > 1 else ""
    name = element("th", steps + solver, scope="row")
    return element("tr", name, *(number_cell(row, column, rows) for column in columns))


def number_cell(row: Measurement, column: Column, rows: Sequence[Measurement]) -> Html:
    """One number and its margin; emphasised if no row has a better one."""
    number, margin = column.number(row), column.margin(row)
    if number is None:
        return element("td", MISSING)
    text = signed(number, column.digits)
    told = element("strong", text) if number == best_number(column, rows) else text
    beside = [] if margin is None else [element("small", f" \N{PLUS-MINUS SIGN} {margin:.{column.digits}f}")]
    return element("td", told, *beside)


def signed(number: float, digits: int = 2) -> str:
    """With a proper minus sign: unbiased distances may be negative."""
    return f"{number:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def best_number(column: Column, rows: Sequence[Measurement]) -> float | None:
    """Of a column; None where none is better than another."""
    if column.best is None:
        return None
    known = {number for row in rows if (number := column.number(row)) is not None}
    return None if len(rows) > 1 and len(known) < 2 else column.best(known)


def solvers(rows: Sequence[Measurement]) -> list[str]:
    """Every solver that was measured."""
    return sorted({row.solver for row in rows})


def caption(data: ReportData) -> str:
    """How the numbers came about and how to read them."""
    measured = f"{data.images_measured:,} generated images per row. " if data.images_measured else ""
    real = (
        ""
        if data.real_mmd is None
        else f" Photographs against other photographs: {signed(round(data.real_mmd, 2) + 0.0)}."
    )
    solver = f"Solver: {solvers(data.measurements)[0]}. " if len(solvers(data.measurements)) == 1 else ""
    floor = "" if data.codec_floor is None else f" The codec's reconstructions: {data.codec_floor:.2f}."
    return f"{measured}{solver}Distances: lower is better; the best quality is bold.{real}{floor}"
