"""Calibration of a learned prior: z-scores, deviations, coverage of intervals."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lediflow.evaluation.plots.style import COLOURS, INK, MUTED, STYLE


@mpl.rc_context(STYLE)
def prior_figure(
    z_edges: Float[np.ndarray, " edges"],
    z_counts: Float[np.ndarray, " bins"],
    predicted: Sequence[float],
    observed: Sequence[float],
    nominal: Sequence[float],
    covered: Sequence[float],
) -> Figure:
    """Three panels: z-scores with the normal density, predicted and observed sigma, coverage of central intervals.

    `z_counts` holds two more bins than `z_edges` has intervals: first and last count the values outside of them.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    histogram, sigma, coverage = figure.subplots(1, 3)
    width = z_edges[1] - z_edges[0]
    middle = (z_edges[1:] + z_edges[:-1]) / 2
    histogram.stairs(z_counts[1:-1] / z_counts.sum() / width, z_edges, fill=True, color=COLOURS[0], alpha=0.5)
    histogram.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), color=INK, linewidth=1.2)
    histogram.set_title("z = (image - mean) / sigma, and N(0, 1)", loc="left", fontsize=10, color=MUTED)
    beside_identity(sigma, predicted, observed, "predicted sigma", "root mean squared error")
    for axis, scale in ((sigma.xaxis, sigma.set_xscale), (sigma.yaxis, sigma.set_yscale)):
        scale("log", base=2)
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axis.set_minor_locator(NullLocator())
    beside_identity(coverage, nominal, covered, "central interval", "share of pixels inside")
    return figure


def beside_identity(axes: Axes, x: Sequence[float], y: Sequence[float], across: str, up: str) -> None:
    """A curve, and the dashed identity line, which is the curve of a calibrated prior."""
    ends = [min(*x, *y), max(*x, *y)]
    axes.plot(ends, ends, color=INK, linewidth=1, dashes=(4, 3))
    axes.plot(x, y, "o-", color=COLOURS[0], markersize=4)
    axes.set_xlabel(across)
    axes.set_title(f"{up}; dashed: calibrated", loc="left", fontsize=10, color=MUTED)
