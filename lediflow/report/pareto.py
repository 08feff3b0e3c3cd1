"""Quality against cost for the script of the page, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lediflow.report.charts import Chart, Line
from lediflow.report.content import SettingMeasurement, methods
from lediflow.report.figure import SERIES
from lediflow.report.quality import (
    COSTS,
    PHOTOGRAPHS,
    RECONSTRUCTIONS,
    QualityPoint,
    dashes_of_solvers,
    quality_lines,
)
from lediflow.tracking.event_log import Curve


def quality_chart(
    measurements: Sequence[SettingMeasurement],
    cost: str,
    metric: str,
    real: float | None = None,
    floor: float | None = None,
) -> Chart:
    """What `quality_plot` draws; rings are around the points of the Pareto front."""
    lines = quality_lines(measurements, cost)
    numbers = {method: place for place, method in enumerate(methods(measurements))}
    dashes = dashes_of_solvers(measurements)
    front = pareto_front([point for line in lines.values() for point in line])
    drawn = [
        Line(
            name=name,
            curve=Curve(
                np.array([point.cost for point in line]), np.array([point.distance for point in line])
            ),
            colour=numbers[line[0].method] % len(SERIES) + 1,
            is_dashed=dashes[line[0].solver] != "Solid",
            rings=[point.cost for point in line if point in front],
            margins=[point.margin or 0.0 for point in line],
        )
        for name, line in lines.items()
    ]
    costs = [point.cost for line in lines.values() for point in line]
    ends = np.array([min(costs), max(costs)])
    for name, level in {PHOTOGRAPHS: real, RECONSTRUCTIONS: floor}.items():
        if level is not None:
            drawn.append(Line(name=name, curve=Curve(ends, np.full(2, level)), colour=0, is_dashed=True))
    return Chart(
        title=f"{metric}, lower is better",
        lines=drawn,
        axis=COSTS[cost],
        place=f"{{}} {'evaluations' if cost == 'evaluations' else 'ms'}",
        is_log_x=True,
        from_zero=False,
        ticks=sorted(set(costs)) if cost == "evaluations" else (),
    )


def pareto_front(points: Sequence[QualityPoint]) -> list[QualityPoint]:
    """The points that no other one beats: none is as good or better at the same or a lower cost."""
    return [
        point
        for point in points
        if not any(
            other.cost <= point.cost
            and other.distance <= point.distance
            and (other.cost, other.distance) != (point.cost, point.distance)
            for other in points
        )
    ]
