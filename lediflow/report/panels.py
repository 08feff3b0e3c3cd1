"""The plots of training, from event logs: losses along the image clock, and errors by bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from lediflow.report.content import BinPanel, LossPanel
from lediflow.report.runs import HELD_OUT, RunRecord
from lediflow.stages import STAGES, LossCurve
from lediflow.stages.bins import TIME_BINS, sigma_edges
from lediflow.tracking.event_log import binned_curve


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
        ),
        BinPanel(
            title="Flow, by the prior's deviation",
            caption="The same error by the prior's standard deviation at the pixel",
            axis="sigma of the prior",
            edges=[sigma_edges()[0] / 2, *sigma_edges(), sigma_edges()[-1] * 2],
            means=by_sigma,
            is_doubling=True,
        ),
    ]
    return [replace(panel, means=known) for panel in panels if (known := means_per_bin(panel))]


def last_means(run: RunRecord, keys: Sequence[str]) -> Float[np.ndarray, " bins"]:
    """Means over the last quarter of the training, of the first of `keys` that the run logged; empty if none."""
    recorded = (binned_curve(run.folder.events, "train", key).values for key in keys)
    rows = next((values for values in recorded if len(values)), np.empty((0, 0)))
    return np.ma.masked_invalid(rows[-max(1, len(rows) // 4) :]).mean(0).filled(np.nan)


def means_per_bin(panel: BinPanel) -> dict[str, Float[np.ndarray, " bins"]]:
    """The means with one value per bin of the panel: older runs may have logged other bins, or none."""
    return {name: means for name, means in panel.means.items() if len(means) == len(panel.edges) - 1}
