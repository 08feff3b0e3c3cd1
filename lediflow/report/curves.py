"""The section of all curves: a chart for each number that a stage's runs logged, with a line for each run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lediflow.evaluation.logged import logged_values
from lediflow.report.charts import Chart, Line
from lediflow.report.content import ChartGroup
from lediflow.report.runs import HELD_OUT, RunRecord
from lediflow.stages import STAGES
from lediflow.tracking.event_log import Curve
from lediflow.tracking.metrics import (
    LOOP_VALUES,
    LOSS,
    OPTIMISER,
    OTHER,
    PRIOR,
    QUALITY,
    RUN,
    SPEED,
    LoggedValue,
    value_of,
)

SECTIONS = (LOSS, QUALITY, OPTIMISER, SPEED, PRIOR, RUN, OTHER)
TRAIN, VALIDATION = "train", "validation"
COLOURS = 6  # of the page


def chart_groups(runs: Sequence[RunRecord]) -> list[ChartGroup]:
    """A group for each stage, in the order of the table of stages."""
    stages = [*STAGES, *dict.fromkeys(run.stage for run in runs if run.stage not in STAGES)]
    groups = []
    for stage in stages:
        own = [run for run in runs if run.stage == stage]
        if charts := stage_charts(own, stage):
            kind = STAGES[stage].curve if stage in STAGES else None
            title = kind.title if kind else stage
            groups.append(ChartGroup(title=title, runs=[run.title for run in own], charts=charts))
    return groups


def stage_charts(runs: Sequence[RunRecord], stage: str) -> list[Chart]:
    """A chart for each number that one of the runs logged, by section; held-out values are in the chart of training."""
    values = logged_values(stage)
    names = list(dict.fromkeys(chart_name(name) for run in runs for name in run.log.numbers))
    known = {name: value_of(name, values) for name in names}
    order = sorted(
        names, key=lambda name: (place(known[name]), list(values).index(name) if name in values else 0)
    )
    charts = []
    for name in order:
        lines = [
            line for number, run in enumerate(runs, 1) for line in lines_of(run, name, number, len(runs) > 1)
        ]
        if lines and not (known[name].section == RUN and are_constant(lines)):
            title = known[name].title[:1].upper() + known[name].title[1:]
            charts.append(Chart(title=title, unit=known[name].unit, lines=lines))
    return charts


def chart_name(name: str) -> str:
    """The number under whose title a number is drawn: that of training for its held-out value."""
    event, _, key = name.partition("/")
    return f"{TRAIN}/{key}" if event == VALIDATION and f"{VALIDATION}/{key}" not in LOOP_VALUES else name


def place(value: LoggedValue) -> int:
    return SECTIONS.index(value.section) if value.section in SECTIONS else len(SECTIONS)


def lines_of(run: RunRecord, name: str, number: int, is_named: bool) -> Iterable[Line]:
    """The line of a run, and that of its held-out samples, dashed."""
    event, _, key = name.partition("/")
    held_out = f"{VALIDATION}/{key}" if event == TRAIN else ""
    shown = {name: run.title if is_named or held_out not in run.log.numbers else "training"}
    shown |= {held_out: f"{run.title}, {HELD_OUT}" if is_named else HELD_OUT}
    for logged, label in shown.items():
        if logged in run.log.numbers:
            found = run.log.numbers[logged].curve
            curve = Curve(found.images_seen, found.values[:, 0])
            colour = (number - 1) % COLOURS + 1
            yield Line(name=label, curve=curve, colour=colour, is_dashed=logged != name)


def are_constant(lines: Sequence[Line]) -> bool:
    """Whether no line changes."""
    return all(np.ptp(line.curve.values) == 0 for line in lines if len(line.curve.values))
