"""The report's section on training: losses along the image clock and errors by bin, from event logs to plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lediflow.report.content import BinPanel, LossPanel
from lediflow.report.figure import SERIES, STYLE, Plot, value_axis
from lediflow.report.runs import HELD_OUT, RunRecord
from lediflow.report.smoothing import finite, smooth, spans_decades, thin
from lediflow.stages import STAGES, LossCurve
from lediflow.stages.bins import TIME_BINS, sigma_edges
from lediflow.tracking.event_log import Curve

OTHER_SERIES = SERIES[2:] + SERIES[:2]  # colours of curves that are not methods
MARKED_POINTS = 12  # curves with at most this many points have a mark at each point


def loss_panels(runs: list[RunRecord]) -> list[LossPanel]:
    """The plots that the stages declare, in the order of their table."""
    panels = []
    for name, kind in STAGES.items():
        own = [run for run in runs if run.stage == name]
        if kind.curve is not None and kind.curve.compares_methods:
            panels += comparing_panels(own, kind.curve)
        elif kind.curve is not None:
            panels += [loss_panel(run, kind.curve) for run in own]
    return panels


def comparing_panels(runs: list[RunRecord], about: LossCurve) -> list[LossPanel]:
    """A plot for training and one for held-out samples, if logged; a curve for each method."""
    panels = []
    for event, samples in (("train", ""), ("validation", " of held-out samples")):
        curves = {run.method: run.curve(about.key, event) for run in runs}
        curves = {method: curve for method, curve in curves.items() if len(curve.values)}
        if curves:
            panels.append(
                LossPanel(
                    title=f"{about.title}{samples and ', held-out samples'}",
                    caption=about.caption.format(samples=samples),
                    curves=curves,
                    lowest=lowest_by_method(runs) if samples else {},
                    compares_methods=True,
                    methods=[run.method for run in runs],
                )
            )
    return panels


def loss_panel(run: RunRecord, about: LossCurve) -> LossPanel:
    """The training and held-out loss of a stage, with a ring at the lowest held-out loss."""
    lowest = {} if run.lowest is None else {HELD_OUT: run.lowest}
    caption = about.caption.format(samples="")
    return LossPanel(title=about.title, caption=caption, curves=run.curves(about.key), lowest=lowest)


def lowest_by_method(runs: list[RunRecord]) -> dict[str, int]:
    """Images seen at the lowest held-out loss, by method."""
    places = {run.method: run.lowest for run in runs}
    return {method: place for method, place in places.items() if place is not None}


def bin_panels(runs: list[RunRecord]) -> list[BinPanel]:
    """The flow's error by time for both methods, and by the deviation of the prior for LeDiFlow."""
    flows = [run for run in runs if run.place == "flow"]
    by_time = {run.method: last_means(run, ("velocity_mse_by_time", "loss_by_time")) for run in flows}
    by_sigma = {run.method: last_means(run, ("loss_by_sigma",)) for run in flows}
    panels = [
        BinPanel(
            title="Flow, by time",
            caption="Squared error of the velocity per pixel, in each tenth of the path",
            axis="time t, from the prior (0) to the image (1)",
            edges=[place / TIME_BINS for place in range(TIME_BINS + 1)],
            means=by_time,
            methods=[run.method for run in flows],
        ),
        BinPanel(
            title="Flow, by the prior's deviation",
            caption="The same error by the prior's standard deviation at the pixel",
            axis="sigma of the prior",
            edges=[sigma_edges()[0] / 2, *sigma_edges(), sigma_edges()[-1] * 2],
            means=by_sigma,
            methods=[run.method for run in flows],
            is_doubling=True,
        ),
    ]
    return [replace(panel, means=known) for panel in panels if (known := means_per_bin(panel))]


def last_means(run: RunRecord, keys: Sequence[str]) -> Float[np.ndarray, " bins"]:
    """Means over the last quarter of the training, of the first of `keys` that the run logged; empty if none."""
    recorded = (run.log.binned_curve("train", key).values for key in keys)
    rows = next((values for values in recorded if len(values)), np.empty((0, 0)))
    return np.ma.masked_invalid(rows[-max(1, len(rows) // 4) :]).mean(0).filled(np.nan)


def means_per_bin(panel: BinPanel) -> dict[str, Float[np.ndarray, " bins"]]:
    """The means with one value per bin of the panel: older runs may have logged other bins, or none."""
    return {name: means for name, means in panel.means.items() if len(means) == len(panel.edges) - 1}


# --- plots ---


@mpl.rc_context(STYLE)
def loss_plot(
    curves: dict[str, Curve], lowest: Mapping[str, int] | None = None, colours: Sequence[str] = SERIES
) -> Markup:
    """Smoothed curves along the image clock, over their faint raw points; logarithmic if they span decades.

    The points of a curve with few points are marked; a single point is labelled with its value. `lowest` maps a curve's
    name to images seen, where a ring is drawn if the curve has a point there.
    """
    raw = {name: thin(finite(curve)) for name, curve in curves.items()}
    ends = {name: end_of(name if len(curves) > 1 else "", curve) for name, curve in raw.items()}
    plot = Plot(ends.values())
    is_log = spans_decades([smooth(curve) for curve in raw.values()])
    unit, of_unit = (1000, ", thousands") if seen(raw) >= 2000 else (1, "")
    for colour, (name, curve) in zip(colours, raw.items(), strict=False):
        smoothed = smooth(curve, in_logs=is_log)
        plot.axes.plot(curve.images_seen / unit, curve.values, color=colour, alpha=0.25, linewidth=1)
        plot.axes.plot(smoothed.images_seen / unit, smoothed.values, color=colour)
        if len(curve.values) <= MARKED_POINTS:
            x = curve.images_seen / unit
            plot.axes.plot(
                x, curve.values, color=colour, marker="o", markersize=5, linewidth=0, clip_on=False
            )
        ring(plot.axes, curves[name], (lowest or {}).get(name), unit, colour)
        if ends[name] and smoothed.values.size:
            plot.name_line(float(smoothed.values[-1]), ends[name], colour)
    value_axis(plot.axes, np.concatenate([curve.values for curve in raw.values()]), is_log)
    plot.axes.margins(x=0.0)
    plot.axes.set_xlim(left=0)
    plot.axes.set_xlabel(f"images seen{of_unit}")
    plot.axes.xaxis.set_major_locator(MaxNLocator(5))
    plot.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    return plot.svg("Training curve: " + ", ".join(curves))


def ring(axes: Axes, curve: Curve, images_seen: int | None, unit: int, colour: str) -> None:
    """Draw a ring around the point of a curve at `images_seen`, if there is one."""
    at = curve.images_seen == images_seen
    axes.plot(
        curve.images_seen[at] / unit, curve.values[at], color=colour, marker="o", markersize=10, linewidth=0,
        markerfacecolor="none", markeredgewidth=2, clip_on=False,
    )  # fmt: skip


def seen(curves: dict[str, Curve]) -> float:
    """Images seen at the end of the longest curve."""
    return max((float(curve.images_seen[-1]) for curve in curves.values() if len(curve.values)), default=0.0)


def in_order(names: Iterable[str], methods: Sequence[str], colours: Sequence[str]) -> list[str]:
    """The colour of each name: that of its place among the methods, or among the names where it is none."""
    places = {name: place for place, name in enumerate(methods or names)}
    return [colours[places[name] % len(colours)] for name in names]


def end_of(name: str, curve: Curve) -> str:
    """The label at the end of a curve: its name, and its value if it has only one point."""
    return f"{name} {curve.values[0]:.3g}".strip() if len(curve.values) == 1 else name


@mpl.rc_context(STYLE)
def bin_plot(panel: BinPanel) -> Markup:
    """A step for each bin that is not empty; logarithmic if the means span decades."""
    plot = Plot(panel.means if len(panel.means) > 1 else ())
    values = np.concatenate([*panel.means.values()])
    known = values[np.isfinite(values)]
    colours = in_order(panel.means, panel.methods, SERIES)
    for colour, (name, means) in zip(colours, panel.means.items(), strict=True):
        plot.axes.stairs(means, panel.edges, color=colour, baseline=None, linewidth=2)
        if len(panel.means) > 1 and np.isfinite(means).any():
            plot.name_line(float(means[np.isfinite(means)][-1]), name, colour)
    value_axis(plot.axes, known, spans_decades([Curve(known, known)]))
    if panel.is_doubling:
        plot.axes.set_xscale("log", base=2)
    plot.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    plot.axes.margins(x=0.0)
    plot.axes.set_xlabel(panel.axis)
    return plot.svg(f"{panel.title}: {', '.join(panel.means)}")
