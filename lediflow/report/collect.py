"""What stands in run folders -> the plain data of a report page.

Nothing is measured here: curves come from events.jsonl, pictures and numbers from samples/ and results/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lediflow.errors import UserError
from lediflow.evaluation.results import AGAIN, read_results
from lediflow.evaluation.stages.figure import SHORT, heading
from lediflow.evaluation.stages.record import STAGES, read_stages
from lediflow.records import RecordError, read_dataclass
from lediflow.report.content import (
    BinPanel,
    CommandRun,
    Fact,
    LossPanel,
    Measurement,
    Picture,
    PriorExample,
    ReportData,
    StageComparison,
    StepComparison,
)
from lediflow.report.curves import finite
from lediflow.run_folder import RunFolder
from lediflow.sampling.folder import check_recorded
from lediflow.sampling.pictures import picture_arrays, picture_files
from lediflow.stages.bins import TIME_BINS, sigma_edges
from lediflow.tracking.event_log import Curve, binned_curve, curve
from lediflow.training.prior_width import describe_width

RESULTS, PICTURES = Path("results/results.json"), Path("results/pictures.safetensors")
OF_STAGES = Path("results/stages") / STAGES
LEDIFLOW, BASELINE = "LeDiFlow", "Flow matching"
HELD_OUT = "held out"


@dataclass(frozen=True)
class RunRecord:
    """A trained run and whatever was made with it."""

    folder: RunFolder
    facts: dict[str, Any]
    results: dict[str, Any] | None
    pictures: dict[str, Tensor]
    stages: dict[str, Any] | None = None  # which stage limits its quality

    @property
    def stage(self) -> str:
        return self.facts["stage"]

    @property
    def method(self) -> str:
        return BASELINE if self.facts["prior"] == "gaussian" else LEDIFLOW

    def curve(self, key: str, event: str = "train") -> Curve:
        return curve(self.folder.events, event, key)

    def curves(self, key: str) -> dict[str, Curve]:
        """Curves of training and, if there are any, of held-out samples, under the averaged weights where measured."""
        averaged = self.curve("averaged_loss", "validation") if key == "loss" else None
        held_out = averaged if averaged and len(averaged.values) else self.curve(key, "validation")
        curves = {"training": self.curve(key), HELD_OUT: held_out}
        return {name: curve for name, curve in curves.items() if len(curve.values)}

    @property
    def lowest(self) -> int | None:
        """Images seen at the lowest held-out loss of the averaged weights, the first of equals; None without one."""
        seen, losses = finite(self.curve("averaged_loss", "validation"))
        return int(seen[losses.argmin()]) if len(losses) else None


def read_run(path: Path) -> RunRecord:
    """A finished run, with its results and pictures where it has them."""
    folder = RunFolder(path)
    folder.require_export("a trained model", "python -m lediflow.train ...")
    results, pictures, stages = (folder.root / name for name in (RESULTS, PICTURES, OF_STAGES))
    return RunRecord(
        folder=folder,
        facts=folder.exported_facts(),
        results=read_results(results) if results.exists() else None,
        pictures=read_pictures(pictures) if pictures.exists() else {},
        stages=read_stages(stages) if stages.exists() else None,
    )


def read_pictures(path: Path) -> dict[str, Tensor]:
    """What `lediflow.evaluate` drew for the page."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} cannot be read ({error}); {AGAIN}") from error


def report_data(runs: list[RunRecord], *, title: str, lead: str, commands: list[CommandRun]) -> ReportData:
    """Everything the page shows about these runs; parts that were not made are left out."""
    flows = sorted((run for run in runs if run.stage == "flow"), key=lambda run: run.method != LEDIFLOW)
    if not runs:
        raise UserError("a report needs at least one run folder")
    measured = [run for run in flows if run.results]
    first = measured[0].results["results"] if measured and measured[0].results else {}
    rows = first.get("rows", [{}])
    return ReportData(
        title=title,
        lead=lead,
        facts=headline_facts(measured),
        samples=sampled_pictures(flows),
        photographs=real_pictures(flows),
        photographs_caption=photographs_caption(flows),
        step_comparison=step_comparison(measured),
        measurements=[row for run in measured for row in measurements(run)],
        mmd_name=rows[0].get("mmd_name", "MMD"),
        frechet_name=rows[0].get("frechet_name", "Fréchet distance"),
        real_mmd=first.get("real_mmd"),
        codec_floor=first.get("codec_floor", {}).get("mmd_unbiased"),
        stages=stage_comparison(flows),
        images_measured=rows[0].get("sample_images", 0),
        priors=prior_examples(flows),
        panels=loss_panels(runs),
        bin_panels=bin_panels(runs),
        environment=widths(flows) | environment(measured),
        commands=commands,
    )


def measurements(run: RunRecord) -> list[Measurement]:
    """The rows of a run's results; RecordError where they are no measurements."""
    assert run.results is not None
    try:
        return [measurement(run.method, row) for row in run.results["results"]["rows"]]
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"{run.folder.root / RESULTS} holds rows that cannot be read ({error}); {AGAIN}"
        ) from error


def measurement(method: str, row: dict[str, Any]) -> Measurement:
    values = {
        "method": method,
        "solver": row["solver"],
        "steps": row["steps"],
        "evaluations": row["nfe"],
        "ms_per_image": row["ms_per_image"],
        "mmd": row["mmd_unbiased"],
        "mmd_margin": margin(row),
        "mmd_to_reconstructions": row.get("against_reconstructions", {}).get("mmd_unbiased"),
        "frechet": row["frechet"],
        "precision": row.get("precision"),
        "recall": row.get("recall"),
    }
    found: Measurement = read_dataclass(Measurement, values, "row")
    return found


def margin(row: dict[str, Any]) -> float | None:
    """Half of the interval, where the results have one."""
    low, high = row.get("mmd_interval", (None, None))
    return None if low is None else (high - low) / 2


def headline_facts(measured: list[RunRecord]) -> list[Fact]:
    """At the fewest steps: how far each method is from the photographs."""
    facts = []
    for run in measured:
        row = min(measurements(run), key=lambda measurement: measurement.evaluations)
        if row.mmd is not None:
            label = f"{run.method}'s MMD with {row.evaluations} evaluations"
            facts.append(Fact(value=f"{row.mmd:.2f}", label=label))
    return facts


def sampled_pictures(flows: list[RunRecord]) -> list[Picture]:
    """What `lediflow.sample` drew from the first flow run that has samples."""
    folders = [run.folder.root / "samples" for run in flows]
    drawn = next((folder for folder in folders if folder.is_dir()), None)
    if drawn is None:
        return []
    check_recorded(drawn)
    return [read_sample(path) for path in picture_files(drawn)]


def read_sample(path: Path) -> Picture:
    try:
        return np.asarray(Image.open(path))
    except (OSError, ValueError, SyntaxError) as error:
        raise RecordError(
            f"{path} is no picture ({error}); delete its folder and sample again: python -m lediflow.sample"
        ) from error


def real_pictures(flows: list[RunRecord]) -> list[Picture]:
    return next((as_pictures(run.pictures["reals"]) for run in flows if "reals" in run.pictures), [])


def photographs_caption(flows: list[RunRecord]) -> str:
    """Whether the photographs shown took part in training."""
    if flows and all(run.facts["data"]["held_out_fraction"] for run in flows):
        return "Photographs that training never saw."
    return "Photographs of the training set."


def step_comparison(measured: list[RunRecord]) -> StepComparison | None:
    if not measured or measured[0].results is None:
        return None
    rows = measured[0].results["results"]["rows"]
    steps = [row["steps"] for row in rows]
    pictures = {
        run.method: [as_pictures(run.pictures[f"steps_{count}"]) for count in steps]
        for run in measured
        if all(f"steps_{count}" in run.pictures for count in steps)
    }
    return StepComparison(steps=steps, pictures=pictures, solver=rows[0]["solver"])


def stage_comparison(flows: list[RunRecord]) -> StageComparison | None:
    """`mode=stages` of the first flow run that has it; RecordError where the file's rows cannot be read."""
    run = next((run for run in flows if run.stages is not None), None)
    if run is None or run.stages is None:
        return None
    found = run.stages
    try:
        return StageComparison(
            heading=heading(found),
            text=found["verdict"]["text"],
            measurements=[stage_measurement(row) for row in found["rows"]],
            mmd_name=found["rows"][0]["mmd_name"],
            real_mmd=None if found["real"] is None else found["real"]["mmd"],
            codec_floor=None if found["codec_floor"] is None else found["codec_floor"]["mmd"],
        )
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"{run.folder.root / OF_STAGES} holds rows that cannot be read ({error}); {AGAIN}"
        ) from error


def stage_measurement(row: dict[str, Any]) -> Measurement:
    """A row as a measurement whose method is the source of z."""
    values = {
        "method": SHORT[row["z"]],
        "solver": row["solver"],
        "steps": row["steps"],
        "evaluations": row["nfe"],
        "mmd": row["mmd"],
        "mmd_margin": (row["high"] - row["low"]) / 2,
    }
    found: Measurement = read_dataclass(Measurement, values, "row")
    return found


def prior_examples(flows: list[RunRecord]) -> list[PriorExample]:
    pictures = next((run.pictures for run in flows if "prior_result" in run.pictures), None)
    if pictures is None:
        return []
    sigma = pictures["prior_sigma"].mean(dim=1).numpy()
    columns = [
        as_pictures(pictures[name]) for name in ("photographs", "prior_mean", "prior_draw", "prior_result")
    ]
    return [
        PriorExample(photograph=photograph, mean=mean, sigma=spread, draw=draw, result=result)
        for photograph, mean, draw, result, spread in zip(*columns, sigma, strict=True)
    ]


def loss_panels(runs: list[RunRecord]) -> list[LossPanel]:
    """A plot per stage; the flow's compares both methods by the plain velocity error."""
    panels = []
    for run in runs:
        if run.stage == "auxiliary":
            caption = "Negative log-likelihood of pixels and divergence of latents, per pixel, in nats"
            panels.append(loss_panel(run, "Auxiliary model", caption))
    for event, of in (("train", ""), ("validation", " of held-out samples")):
        flows = {run.method: run.curve("velocity_mse", event) for run in runs if run.stage == "flow"}
        flows = {method: curve for method, curve in flows.items() if len(curve.values)}
        caption = f"Squared error of the velocity per pixel{of}: how far the start still is from the image"
        if flows:
            panels.append(
                LossPanel(
                    title=f"Flow{of and ', held-out samples'}",
                    caption=caption,
                    curves=flows,
                    lowest=lowest_of(runs) if of else {},
                )
            )
    for run in runs:
        if run.stage == "latent_sampler":
            caption = "Squared error of the velocity in latent space"
            panels.append(loss_panel(run, "Latent sampler", caption))
    return panels


def loss_panel(run: RunRecord, title: str, caption: str) -> LossPanel:
    """The panel of a stage's loss, with a mark at the lowest held-out loss."""
    lowest = {} if run.lowest is None else {HELD_OUT: run.lowest}
    return LossPanel(title=title, caption=caption, curves=run.curves("loss"), lowest=lowest)


def lowest_of(runs: list[RunRecord]) -> dict[str, int]:
    """Images seen at the lowest held-out loss of each flow, by method."""
    places = {run.method: run.lowest for run in runs if run.stage == "flow"}
    return {method: place for method, place in places.items() if place is not None}


def bin_panels(runs: list[RunRecord]) -> list[BinPanel]:
    """The flow's error by time for both methods, and by the deviation of the prior it starts from."""
    flows = [run for run in runs if run.stage == "flow"]
    by_time = {run.method: last_means(run, ("velocity_mse_by_time", "loss_by_time")) for run in flows}
    by_sigma = {run.method: last_means(run, ("loss_by_sigma",)) for run in flows}
    panels = [
        BinPanel(
            title="Flow, by time",
            caption="Squared error of the velocity per pixel, at the tenths of a path",
            axis="time t, from the prior (0) to the image (1)",
            edges=[place / TIME_BINS for place in range(TIME_BINS + 1)],
            means=by_time,
        ),
        BinPanel(
            title="Flow, by the prior's deviation",
            caption="The same, by how unsure the prior was of the pixel that the path starts at",
            axis="sigma of the prior",
            edges=[sigma_edges()[0] / 2, *sigma_edges(), sigma_edges()[-1] * 2],
            means=by_sigma,
            is_doubling=True,
        ),
    ]
    return [replace(panel, means=known) for panel in panels if (known := of_length(panel))]


def last_means(run: RunRecord, keys: Sequence[str]) -> Float[np.ndarray, " bins"]:
    """Means of the last quarter of the training, of the first of the keys that it recorded."""
    recorded = (binned_curve(run.folder.events, "train", key).values for key in keys)
    rows = next((values for values in recorded if len(values)), np.empty((0, 0)))
    return np.ma.masked_invalid(rows[-max(1, len(rows) // 4) :]).mean(0).filled(np.nan)


def of_length(panel: BinPanel) -> dict[str, Float[np.ndarray, " bins"]]:
    """The means that have a value for each of the panel's bins: an older run may have had other bins, or none."""
    return {name: means for name, means in panel.means.items() if len(means) == len(panel.edges) - 1}


def widths(flows: list[RunRecord]) -> dict[str, str]:
    """The width added to the prior of each flow that has a learned prior."""
    found = {run.folder.root.name: width for run in flows if (width := describe_width(run.facts)) is not None}
    title = "Width added to the prior"
    return {title if len(found) == 1 else f"{title}, {name}": width for name, width in found.items()}


def environment(measured: list[RunRecord]) -> dict[str, str]:
    """The birth certificate of the first measured run."""
    if not measured or measured[0].results is None:
        return {}
    certificate = measured[0].results["certificate"]
    hardware = certificate["hardware"]
    return {
        "Processor": f"{hardware['processor']}, {hardware['cores']} cores",
        "GPU": ", ".join(hardware["gpus"]) or "none",
        "System": hardware["system"],
        "Commit": certificate["commit"],
        "Seed": str(certificate["seed"]),
        "Date": certificate["date"],
        **certificate["versions"],
    }


def as_pictures(images: Tensor) -> list[Picture]:
    return [picture.squeeze(-1) if picture.shape[-1] == 1 else picture for picture in picture_arrays(images)]
