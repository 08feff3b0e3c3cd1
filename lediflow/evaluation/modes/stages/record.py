"""stages.json: reading and writing, its contents as evidence and as lines to draw, and the losses that it records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lediflow.disk import whole_or_absent
from lediflow.evaluation.modes.stages.evidence import Evidence, FlowLoss, MmdInterval, SolverSteps
from lediflow.evaluation.modes.stages.verdict import Verdict
from lediflow.evaluation.plots.points import CostLine, CostPoint
from lediflow.evaluation.results import AGAIN
from lediflow.flow.solvers import ignores_steps
from lediflow.records import Record, RecordError, read_record
from lediflow.tracking.event_log import curve

STAGES_FILE = "stages.json"
VERSION = 1
TYPES = {
    "rows": list[dict[str, Any]],
    "losses": dict[str, Any],
    "verdict": {"limits": str, "text": str},
}
TAIL = 0.1  # share of the points, at least one, that the last training loss is the mean of
NAMES = {
    "training": "z of training images",
    "heldout": "z of held-out images",
    "sampler": "z of the sampler",
    "gaussian": "Gaussian noise (flow matching)",
}
SHORT = {
    "training": "training z",
    "heldout": "held-out z",
    "sampler": "sampler's z",
    "gaussian": "flow matching",
}
LIMITS = {
    "prior": "the prior",
    "sampler": "the latent sampler",
    "flow": "the flow",
    "codec": "the codec",
    "nothing": "nothing significant",
}


def write_stages(path: Path, results: dict[str, Any], certificate: dict[str, Any]) -> None:
    """Write stages.json; the file is whole or absent. UserError where it cannot be written."""
    document = {"schema_version": VERSION, "certificate": certificate, **results}
    with whole_or_absent(path) as stream:
        stream.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def read_stages(path: Path) -> Record:
    """Read what `write_stages` wrote; RecordError for any other file."""
    document = read_record(path, AGAIN, TYPES)
    if document.get("schema_version") != VERSION:
        raise RecordError(f"{path} is not a file of stages of version {VERSION}; {AGAIN}")
    return document


def run_losses(events: Path) -> dict[str, Any]:
    """The last losses, and the lowest held-out loss with the images seen then; empty without losses in the log."""
    training, held_out = curve(events, "train", "loss"), curve(events, "validation", "loss")
    found: dict[str, Any] = {}
    if len(training.values):
        last = max(1, round(TAIL * len(training.values)))
        found["training"] = float(training.values[-last:].mean())
        found["images_seen"] = int(training.images_seen[-1])
    if len(held_out.values):
        place = int(held_out.values.argmin())
        found["held_out"] = float(held_out.values[-1])
        found["held_out_minimum"] = float(held_out.values[place])
        found["held_out_minimum_at"] = int(held_out.images_seen[place])
    return found


def stage_lines(document: Mapping[str, Any]) -> dict[CostLine, list[CostPoint]]:
    """A line for each source of z, and for each of several solvers; the prior alone belongs to the first solver."""
    rows = document["rows"]
    solvers = list(dict.fromkeys(row["solver"] for row in rows if row["steps"]))
    found: dict[CostLine, list[CostPoint]] = {}
    for row in rows:
        solver = row["solver"] if row["steps"] else solvers[0]
        label = solver if ignores_steps(solver) else str(row["steps"])
        point = CostPoint(row["nfe"], row["mmd"], row["low"], row["high"], label)
        found.setdefault(CostLine(NAMES[row["z"]], solver if len(solvers) > 1 else ""), []).append(point)
    return found


def heading(document: Mapping[str, Any]) -> str:
    """One line: what limits the quality."""
    return f"What limits the quality: {LIMITS[document['verdict']['limits']]}"


def evidence_of(document: Mapping[str, Any]) -> Evidence:
    """Read the evidence from the contents of stages.json: rows, losses, real, codec_floor."""
    curves: dict[str, dict[SolverSteps, tuple[float, MmdInterval]]] = {}
    for row in document["rows"]:
        curves.setdefault(row["z"], {})[(row["solver"], row["steps"])] = (row["nfe"], level_of(row))
    losses = document["losses"]
    prior = losses.get("prior", {})
    return Evidence(
        curves=curves,
        real=document.get("real") and level_of(document["real"]),
        codec_floor=document.get("codec_floor") and level_of(document["codec_floor"]),
        vgl_training=prior.get("training", {}).get("vgl"),
        vgl_held_out=prior.get("heldout", {}).get("vgl"),
        sigma=prior.get("heldout", {}).get("sigma_geometric_mean"),
        residual=prior.get("heldout", {}).get("residual_geometric_mean"),
        prior_widening=losses.get("prior_widening", 0.0),
        prior_scale=losses.get("prior_scale", 1.0),
        sampler_images=losses.get("sampler", {}).get("images_seen"),
        flow_loss=flow_loss(losses.get("flow", {})),
    )


def flow_loss(losses: Mapping[str, Any]) -> FlowLoss | None:
    """The flow's losses as `run_losses` has them; None where one is missing."""
    known = [losses.get(name) for name in ("training", "held_out", "held_out_minimum", "held_out_minimum_at")]
    return None if None in known else FlowLoss(*known)  # type: ignore[arg-type]


def level_of(row: Mapping[str, Any]) -> MmdInterval:
    return MmdInterval(row["mmd"], row["low"], row["high"])


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """The verdict as stages.json keeps it."""
    parts = {name: part._asdict() for name, part in verdict.parts.items()}
    solver, steps = verdict.setting
    return {
        "limits": verdict.limits,
        "text": verdict.text,
        "cause": verdict.cause,
        "is_certain": verdict.is_certain,
        "setting": {"solver": solver, "steps": steps},
        "parts": parts,
    }
