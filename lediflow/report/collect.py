"""Run folders -> the content of a report.

Nothing is measured here: curves come from events.jsonl, pictures and numbers from samples/ and results/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from lediflow.errors import UserError
from lediflow.evaluation.metrics import MAIN, shown_in
from lediflow.evaluation.modes.stages.record import SHORT, heading
from lediflow.evaluation.results import AGAIN, classes_text
from lediflow.records import RecordError, read_dataclass
from lediflow.report.configurations import configurations
from lediflow.report.content import (
    CommandRun,
    Fact,
    Picture,
    PriorExample,
    ReportData,
    SettingMeasurement,
    StageComparison,
    StepComparison,
    temperature_text,
)
from lediflow.report.curves import chart_groups
from lediflow.report.edits import edits_of
from lediflow.report.pictures import pictures_of
from lediflow.report.run_table import run_row, run_timeline
from lediflow.report.runs import RESULTS, STAGE_RESULTS, RunRecord, with_distinct_titles
from lediflow.report.timeline import Timeline
from lediflow.report.training import bin_panels, loss_panels
from lediflow.sampling.folder import check_recorded
from lediflow.sampling.pictures import picture_arrays, picture_files
from lediflow.tracking.secrets import without_secrets
from lediflow.training.prior_width import describe_width

FINGERPRINT_DIGITS = 12


def report_data(
    runs: list[RunRecord], *, title: str, lead: str, commands: list[CommandRun], edits: Sequence[Path] = ()
) -> ReportData:
    """The content of a page about these runs; what they do not have stays empty. UserError without runs.

    `edits` are output folders of `lediflow.edit`.
    """
    if not runs:
        raise UserError("a report needs at least one run folder")
    # one order, and so one colour per method
    runs = sorted(with_distinct_titles(runs), key=lambda run: run.is_baseline)
    histories = [run_timeline(run) for run in runs]
    flows = [run for run in runs if run.place == "flow"]
    measured = [run for run in flows if run.results]
    compared = [run for run in measured if not measured_otherwise(run, measured[0])]
    # those that the plots of quality show come first, so that a method has the same colour in every plot
    shown = {run.folder.root for run in compared}
    flows, measured = (
        sorted(found, key=lambda run: run.folder.root not in shown) for found in (flows, measured)
    )
    ordered = [*flows, *(run for run in runs if run.place != "flow")]
    first = measured[0].results["results"] if measured and measured[0].results else {}
    rows = first.get("rows", [{}])
    return ReportData(
        title=title,
        lead=lead,
        facts=headline_facts(compared),
        samples=sampled_pictures(flows),
        photographs=real_pictures(flows),
        photographs_caption=photographs_caption(flows),
        step_comparison=step_comparison(measured),
        measurements=[row for run in compared for row in measurements(run)],
        left_out=[sentence for run in measured if (sentence := measured_otherwise(run, measured[0]))],
        mmd_name=rows[0].get("mmd_name", "MMD"),
        metric_names={metric.key: metric.heading(rows[0]) for metric in shown_in("report")},
        real_mmd=first.get("real_mmd"),
        codec_floor=first.get("codec_floor", {}).get("mmd_unbiased"),
        stages=stage_comparison(flows),
        edits=edits_of(edits),
        images_measured=rows[0].get("sample_images", 0),
        priors=prior_examples(flows),
        panels=loss_panels(ordered),
        bin_panels=bin_panels(flows),
        training_pictures=pictures_of(runs),
        chart_groups=chart_groups(ordered),
        runs=[run_row(run, history) for run, history in zip(runs, histories, strict=True)],
        timelines=[history for history in histories if history.sessions],
        configurations=configurations(runs),
        environment=without_secrets(widths(flows) | environment(measured)),
        commands=[
            replace(run, command=without_secrets(run.command))
            for run in commands or training_commands(histories)
        ],
        are_all_commands=bool(commands),
    )


def measured_otherwise(run: RunRecord, first: RunRecord) -> str:
    """How a run's rows were measured otherwise than those of the first run, as a sentence; "" if they compare."""
    theirs, ours = (measure_of(record) for record in (run, first))
    differing = [f"{name}: {theirs[name]}, here {ours[name]}" for name in ours if theirs[name] != ours[name]]
    return f"{run.method} was measured otherwise ({'; '.join(differing)})" if differing else ""


def measure_of(run: RunRecord) -> dict[str, Any]:
    """What the rows of two runs must share to be compared."""
    assert run.results is not None
    found = run.results["results"]
    row: dict[str, Any] = next(iter(found["rows"]), {})
    reference = found.get("reference") or {}
    return {
        "MMD": row.get("mmd_name"),
        "generated images": row.get("sample_images"),
        "real images": row.get("reference_images"),
        "fingerprint of the real images": str(reference.get("fingerprint"))[:FINGERPRINT_DIGITS],
    }


def measurements(run: RunRecord) -> list[SettingMeasurement]:
    """The rows of a run's results. RecordError if they cannot be read as measurements."""
    assert run.results is not None
    try:
        return [measurement(run.method, row) for row in run.results["results"]["rows"]]
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"{run.folder.root / RESULTS} holds rows that cannot be read ({error}); {AGAIN}"
        ) from error


def measurement(method: str, row: dict[str, Any]) -> SettingMeasurement:
    values = {
        "method": method,
        "solver": row["solver"],
        "steps": row["steps"],
        "evaluations": row["nfe"],
        "temperature": row.get("temperature", 1.0),
        "classes": classes_text(row),
        "ms_per_image": row["ms_per_image"],
        "mmd": row["mmd_unbiased"],
        "mmd_margin": margin(row),
        "mmd_to_reconstructions": row.get("against_reconstructions", {}).get("mmd_unbiased"),
        "metrics": {
            metric.key: value
            for metric in shown_in("report")
            if metric is not MAIN and (value := metric.value(row)) is not None
        },
    }
    found: SettingMeasurement = read_dataclass(SettingMeasurement, values, "row")
    return found


def margin(row: dict[str, Any]) -> float | None:
    """Half of the MMD's interval; None if the results have none."""
    low, high = row.get("mmd_interval", (None, None))
    return None if low is None else (high - low) / 2


def headline_facts(measured: list[RunRecord]) -> list[Fact]:
    """The MMD of each method with its fewest evaluations."""
    facts: list[Fact] = []
    series = {method: place for place, method in enumerate(dict.fromkeys(run.method for run in measured), 1)}
    for run in measured:
        row = min(measurements(run), key=lambda measurement: measurement.evaluations)
        if row.mmd is not None:
            counted = "1 evaluation" if row.evaluations == 1 else f"{row.evaluations} evaluations"
            facts.append(
                Fact(
                    value=f"{row.mmd:.2f}",
                    margin="" if row.mmd_margin is None else f"\N{PLUS-MINUS SIGN} {row.mmd_margin:.2f}",
                    label=f"MMD of {run.method} with {counted}{temperature_text(row)} (lower is better)",
                    series=series[run.method],
                )
            )
    return facts


def sampled_pictures(flows: list[RunRecord]) -> list[Picture]:
    """The images of `lediflow.sample` in the first flow run that has some."""
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
            f"{path} is not a picture ({error}); delete its folder and sample again: python -m lediflow.sample"
        ) from error


def real_pictures(flows: list[RunRecord]) -> list[Picture]:
    return next((as_pictures(run.pictures["reals"]) for run in flows if "reals" in run.pictures), [])


def photographs_caption(flows: list[RunRecord]) -> str:
    """A caption that says whether the photographs, those of the first run that has some, were trained on."""
    source = next((run for run in flows if "reals" in run.pictures), None)
    held_out = source.facts["data"]["held_out_fraction"] if source else 0.0
    if source is None or not held_out:
        return "Photographs of the training set."
    data = source.facts["data"].get("fingerprint")
    same = [run.facts["data"] for run in flows if run.facts["data"].get("fingerprint") == data]
    if all(facts["held_out_fraction"] >= held_out for facts in same):
        return "Photographs that training never saw."
    return f"Photographs that the training of {source.method} never saw."


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
    """`mode=stages` of the first flow run that has it. RecordError if the file's rows cannot be read."""
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
            f"{run.folder.root / STAGE_RESULTS} holds rows that cannot be read ({error}); {AGAIN}"
        ) from error


def stage_measurement(row: dict[str, Any]) -> SettingMeasurement:
    """A row of `mode=stages` as a measurement; its method is the source of z."""
    values = {
        "method": SHORT[row["z"]],
        "solver": row["solver"],
        "steps": row["steps"],
        "evaluations": row["nfe"],
        "mmd": row["mmd"],
        "mmd_margin": (row["high"] - row["low"]) / 2,
    }
    found: SettingMeasurement = read_dataclass(SettingMeasurement, values, "row")
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


def widths(flows: list[RunRecord]) -> dict[str, str]:
    """The width added to the prior, for each flow that has a learned prior."""
    found = {run.folder.root.name: width for run in flows if (width := describe_width(run.facts)) is not None}
    title = "Width added to the prior"
    return {title if len(found) == 1 else f"{title}, {name}": width for name, width in found.items()}


def environment(measured: list[RunRecord]) -> dict[str, str]:
    """Hardware, commit, seed, date and versions of the first measured run."""
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


def training_commands(histories: Sequence[Timeline]) -> list[CommandRun]:
    """The command that each run was started with, the last one where there were several."""
    last = {found.name: found.sessions[-1].facts.get("command") for found in histories if found.sessions}
    return [
        CommandRun(purpose=f"Train {name}.", command=command) for name, command in last.items() if command
    ]


def as_pictures(images: Tensor) -> list[Picture]:
    return [picture.squeeze(-1) if picture.shape[-1] == 1 else picture for picture in picture_arrays(images)]
