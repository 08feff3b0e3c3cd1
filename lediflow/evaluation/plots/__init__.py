"""Plots as PNG and SVG files for papers and talks, on white and in the colours of the report."""

from lediflow.evaluation.plots.pareto import Line, Point, is_beaten, pareto_figure
from lediflow.evaluation.plots.prior import prior_figure
from lediflow.evaluation.plots.stages import stages_figure
from lediflow.evaluation.plots.style import COLOURS, write_figure

__all__ = [
    "COLOURS",
    "Line",
    "Point",
    "is_beaten",
    "pareto_figure",
    "prior_figure",
    "stages_figure",
    "write_figure",
]
