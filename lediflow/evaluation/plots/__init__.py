"""Plots as PNG and SVG files for papers and talks, on white and in the colours of the report.

style     colours and matplotlib settings, also of the report's plots; how files are written
quality   quality against cost: Pareto panels, and the figure of `mode=stages`
prior     calibration of a learned prior
"""

from lediflow.evaluation.plots.prior import prior_figure
from lediflow.evaluation.plots.quality import Line, Point, is_beaten, pareto_figure, stages_figure
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
