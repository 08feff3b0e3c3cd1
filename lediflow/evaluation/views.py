"""Rows of results for people: a line in the terminal, tables in Markdown, and quality against cost as PNG and SVG.

Which metrics are shown, and under which names, is in the table `metrics.METRICS`. Numbers of different metrics,
features or references cannot be compared, so every table names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lediflow.disk import whole_or_absent
from lediflow.evaluation.metrics import MAIN, Metric, Row, shown_in
from lediflow.evaluation.plots.points import CostLine, CostPoint
from lediflow.evaluation.results import classes_text
from lediflow.evaluation.session import Session
from lediflow.flow.solvers import ignores_steps
from lediflow.text import steps_text

RECONSTRUCTIONS = "against_reconstructions"  # a row's metrics against the codec's reconstructions
BAR = r"\|"
COSTS = {"ms_per_image": "milliseconds per image", "nfe": "evaluations of the flow model per image"}
TABLE, PLOT = "table.md", "pareto"
VIEWS = (TABLE, f"{PLOT}.png", f"{PLOT}.svg")


def table_markdown(
    rows: Sequence[Row],
    baseline: str | None = None,
    *,
    paths: dict[str, dict[str, float]] | None = None,
    floor: Row | None = None,
) -> str:
    """All tables. `baseline`: the run that speed-ups refer to. `floor`: metrics of the codec's reconstructions."""
    parts = [
        heading(rows, floor),
        summary(rows, baseline),
        within_budgets(rows),
        every_cell(rows),
        *([paths_table(paths)] if paths else []),
    ]
    return "\n\n".join(parts) + "\n"


def heading(rows: Sequence[Row], floor: Row | None = None) -> str:
    """Which metric, how many images, against what."""
    first = rows[0]
    return (
        f"{first['mmd_name']}, unbiased, times 1000, with 95 % intervals; lower is better. {first['sample_images']:,} "
        f"generated images a row against {first['reference_images']:,} {first.get('reference', 'photographs')}. NFE "
        f"counts evaluations of the flow model; ms per image is the whole chain.{floor_sentence(floor)}"
    )


def floor_sentence(floor: Row | None) -> str:
    """The MMD of the codec's reconstructions."""
    if floor is None:
        return ""
    return f" The codec's floor, its reconstructions of these photographs, is at {value_text(MAIN, floor)}."


def summary(rows: Sequence[Row], baseline: str | None) -> str:
    """A line for each run: its best row, the cheapest row that is as good, and the gain over the baseline."""
    lines = [["run", f"best {rows[0]['mmd_name']}", "at", "ms/img", "as good from", "ms/img", "speed-up"]]
    for name, own in by_run(rows).items():
        best = min(own, key=quality)
        cheap = cheapest(own, best["mmd_interval"][1])
        lines.append(
            [
                name,
                value_text(MAIN, best),
                setting(best),
                f"{best['ms_per_image']:.3g}",
                setting(cheap),
                f"{cheap['ms_per_image']:.3g}",
                speed_up(rows, name, baseline),
            ]
        )
    note = ""
    if baseline is not None:
        note = (
            f"\n\nSpeed-up: time of {baseline}'s best row over that of the run's cheapest row that is at least as good "
            "(the middle of its interval); a dash where no row is."
        )
    return markdown(lines) + note


def within_budgets(rows: Sequence[Row]) -> str:
    """The best row of each run for budgets of evaluations of the flow model; the lowest of a line is bold."""
    runs, most = by_run(rows), max(row["nfe"] for row in rows)
    budgets = [2**power for power in range(most.bit_length()) if 2**power <= most]
    lines = [["evaluations at most", *runs]]
    for budget in budgets:
        best = {name: best_within(own, budget) for name, own in runs.items()}
        lowest = min((row for row in best.values() if row), key=quality, default=None)
        lines.append([str(budget), *(value_at(row, is_bold=row is lowest) for row in best.values())])
    return markdown(lines)


def best_within(rows: Iterable[Row], budget: int) -> Row | None:
    return min((row for row in rows if row["nfe"] <= budget), key=quality, default=None)


def value_at(row: Row | None, *, is_bold: bool) -> str:
    """The MMD and the setting; a dash without a row."""
    if row is None:
        return "-"
    text = f"{quality(row):.3f}"
    return f"{f'**{text}**' if is_bold else text} ({setting(row)})"


def speed_up(rows: Sequence[Row], name: str, baseline: str | None) -> str:
    """Time of the baseline's best row over that of the run's cheapest row that is at least as good."""
    if baseline is None:
        return "-"
    best = min(by_run(rows)[baseline], key=quality)
    as_good = [row for row in by_run(rows)[name] if quality(row) <= quality(best)]
    if not as_good:
        return "-"
    return f"{best['ms_per_image'] / min(row['ms_per_image'] for row in as_good):.2f} x"


def cheapest(rows: Iterable[Row], worst: float) -> Row:
    """The cheapest row with an MMD of at most `worst`."""
    return min((row for row in rows if quality(row) <= worst), key=lambda row: row["ms_per_image"])


def every_cell(rows: Sequence[Row]) -> str:
    """A line for each row of results; the best MMD of each run is bold."""
    to_codec = ["to reconstructions"] if any(RECONSTRUCTIONS in row for row in rows) else []
    others = [metric for metric in shown_in("table") if metric is not MAIN]
    names = [MAIN.heading(rows[0]), *to_codec, *(metric.heading(rows[0]) for metric in others)]
    lines = [["run", "setting", "NFE", *names, *cost_names(rows)]]
    best = {name: min(own, key=quality) for name, own in by_run(rows).items()}
    for row in rows:
        text = value_text(MAIN, row)
        lines.append(
            [
                row["run"],
                setting(row),
                str(row["nfe"]),
                f"**{text}**" if row is best[row["run"]] else text,
                *(number(MAIN.value(row.get(RECONSTRUCTIONS, {}))) for _ in to_codec),
                *(number(metric.value(row)) for metric in others),
                *(f"{batch['total']:.3g}" for batch in row["cost"].values()),
            ]
        )
    return markdown(lines)


def paths_table(paths: dict[str, dict[str, float]]) -> str:
    """Shape of each run's paths; 0 is straight."""
    names = ["straightness", "relative", "curvature"]
    return markdown(
        [["run", *names], *([run, *(number(shape[name]) for name in names)] for run, shape in paths.items())]
    )


def cost_names(rows: Sequence[Row]) -> list[str]:
    return [f"ms/img, batch {name.removeprefix('batch_')}" for name in rows[0]["cost"]]


def by_run(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["run"], []).append(row)
    return found


def quality(row: Row) -> float:
    """The value that rows are ordered by: the unbiased MMD."""
    return row[MAIN.shown_key]


def setting(row: Row) -> str:
    """Solver, steps, temperature and classes, abbreviated."""
    tempered = conditions(row)
    if row["steps"] == 0:
        return f"prior alone{tempered}"
    if ignores_steps(row["solver"]):
        return f"{row['solver']}{tempered}"
    return f"{row['solver']} {row['steps']}{tempered}"


def conditions(row: Row) -> str:
    """What the images of a row are conditioned on: a temperature other than 1, and classes."""
    tempered = "" if row["temperature"] == 1 else f", temperature {row['temperature']:g}"
    return tempered + classes_text(row)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def markdown(lines: list[list[str]]) -> str:
    """A table whose first line is the head; bars in names are escaped."""
    head, *body = (f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |" for cells in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *body])


def pareto_panels(rows: Sequence[Row]) -> dict[str, dict[CostLine, list[CostPoint]]]:
    """For each cost the lines of runs, solvers and temperatures; a cost without points is left out."""
    panels = {title: pareto_lines(rows, key) for key, title in COSTS.items()}
    return {title: found for title, found in panels.items() if found}


def pareto_lines(rows: Sequence[Row], cost: str) -> dict[CostLine, list[CostPoint]]:
    """Lines of points labelled with their steps; rows of cost 0 cannot be drawn on a logarithmic axis."""
    found: dict[CostLine, list[CostPoint]] = {}
    for row in rows:
        if row[cost] > 0:
            low, high = row["mmd_interval"]
            label = row["solver"] if ignores_steps(row["solver"]) and row["steps"] else str(row["steps"])
            point = CostPoint(row[cost], row["mmd_unbiased"], low, high, label)
            found.setdefault(line_of(row, rows), []).append(point)
    return found


def line_of(row: Row, rows: Sequence[Row]) -> CostLine:
    """The run, with solver and temperature where its lines differ in them."""
    own = [other for other in rows if other["run"] == row["run"]]
    solvers = {other["solver"] for other in own if other["steps"]}
    temperatures = {other["temperature"] for other in own}
    return CostLine(
        row["run"],
        "prior alone" if not row["steps"] else row["solver"] if len(solvers) > 1 else "",
        f"temperature {row['temperature']:g}" if len(temperatures) > 1 else "",
    )


def describe(row: dict[str, Any]) -> str:
    """A row of results in a line: setting, cost, metrics."""
    return f"{cost_of(row)}{quality_of(row)} on {row['sample_images']} images"


def cost_of(row: dict[str, Any]) -> str:
    if "steps" not in row:
        return ""
    tempered = conditions(row)
    steps = "" if ignores_steps(row["solver"]) and row["steps"] else f" {steps_text(row['steps'])}"
    return f"{row['solver']}{steps}{tempered} ({row['nfe']} NFE, {row['ms_per_image']:.1f} ms/img): "


def quality_of(row: Row) -> str:
    """The metrics that the terminal shows; after the MMD also the one against the codec's reconstructions."""
    parts = [
        f"{metric.heading(row)} {value_text(metric, row)}"
        for metric in shown_in("terminal")
        if metric.value(row) is not None
    ]
    if RECONSTRUCTIONS in row:
        parts.insert(1, f"{quality(row[RECONSTRUCTIONS]):.3f} against reconstructions")
    return ", ".join(parts)


def value_text(metric: Metric, row: Row) -> str:
    """A metric's value in a row, with its interval if it has one."""
    low, high = row.get(f"{metric.key}_interval", (None, None))
    return f"{metric.value(row):.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def write_views(
    session: Session,
    output: Path,
    rows: Sequence[dict[str, Any]],
    *,
    real_mmd: float | None,
    baseline: str | None = None,
    paths: dict[str, dict[str, float]] | None = None,
    floor: dict[str, Any] | None = None,
) -> None:
    """Write table.md and the plots on rank 0; `baseline` and `floor` as in `table_markdown`."""
    with session.group.together(f"writing {output}"):
        if session.group.is_first:
            from lediflow.evaluation.plots.quality import pareto_figure
            from lediflow.evaluation.plots.style import write_figure

            with whole_or_absent(output / TABLE) as stream:
                stream.write(table_markdown(rows, baseline, paths=paths, floor=floor).encode())
            figure = pareto_figure(pareto_panels(rows), rows[0]["mmd_name"], real_mmd)
            write_figure(figure, output / PLOT)


def print_rows(session: Session, results: dict[str, Any]) -> None:
    """A line in the terminal for each row of results, on rank 0."""
    for row in results["rows"]:
        session.say(describe(row))
