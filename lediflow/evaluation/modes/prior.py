"""`mode=prior`: likelihood and calibration of the learned prior on real images.

results.json   the numbers       prior.png   z-scores, calibration, coverage; also prior.svg
sigma.png      photographs, the prior's mean, its sigma (dark: small), a draw

The numbers are those of the auxiliary model. The pictures of a flow with a widened prior show what that flow starts
from.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.evaluation.config import request
from lediflow.evaluation.images import ShardImages
from lediflow.evaluation.pictures import SHOWN, prior_pictures
from lediflow.evaluation.prior import diagnose
from lediflow.evaluation.references import (
    check_signals,
    chosen_numbers,
    held_out_samples,
    open_shards,
    reference_samples,
    seen_held_out,
)
from lediflow.evaluation.session import Session
from lediflow.flow.widening import Width, recorded_width
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.run_folder import RunFolder
from lediflow.sampling.grids import labelled_grid
from lediflow.stages import place_of
from lediflow.training.prior_width import describe_start


def evaluate_prior(session: Session) -> dict[str, Any]:
    """Measure the auxiliary model of a run of any stage on the images of `data.split`."""
    command = session.command
    assert command.run is not None
    auxiliary, facts = find_auxiliary(session, command.run)
    reader = open_shards(session, command.data.path)
    check_signals(reader, facts, command.data.path)
    output = Path(command.output or f"{command.run}/results/prior")
    session.claim(output)
    samples = reference_samples(reader, command.reference_count)
    chosen = chosen_numbers(command.data.split, held_out_samples(reader, facts, samples), len(samples))
    signals = ShardImages(reader, samples[chosen], device=session.device)
    advance, close = session.progress("prior", len(signals))
    prior = diagnose(
        auxiliary,
        signals.signals,
        len(signals),
        session.group,
        batch_size=command.batch_size,
        is_pixels=facts["codec"]["name"] == "pixels",
        advance=advance,
    )
    close()
    results = {
        "asked": request(dataclasses.replace(command, precision="float32")),
        "data": reader.index.fingerprint,
        "prior": prior,
        "prior_widening": recorded_width(facts).added,
        "prior_scale": recorded_width(facts).scale,
    }
    session.withdraw(output)
    write_pictures(session, output, auxiliary, signals, facts, prior)
    session.write(output, results, command.seed)
    session.say(describe(prior))
    session.say(f"written: {output}/results.json, prior.png, sigma.png")
    return results


def find_auxiliary(session: Session, run: str) -> tuple[AuxiliaryModel, dict[str, Any]]:
    """The run's auxiliary model, its own or its parent's, and the facts of the run's export."""
    with session.group.together(f"loading {run}"):
        folder = RunFolder(Path(run))
        session.models.require_export(folder, "the model", "python -m lediflow.train ...")
        facts = folder.exported_facts()
        if place_of(facts["stage"]) != "auxiliary":
            if facts["parent"] is None:
                raise UserError(
                    f"run={run} is the Gaussian baseline, which has no learned prior; give another run"
                )
            folder = session.models.find_parent({folder.root: facts["parent"]}, facts["parent"]["sha256"])
        data = folder.exported_facts().get("data") or {}
        if seen := seen_held_out("auxiliary model", data, facts.get("data") or {}):
            session.note(seen)
        model = session.models.auxiliary(folder.export)
        return model.to(session.device).eval().requires_grad_(False), facts


def write_pictures(
    session: Session,
    output: Path,
    auxiliary: AuxiliaryModel,
    signals: ShardImages,
    facts: dict[str, Any],
    prior: dict[str, Any],
) -> None:
    """Write prior.png, prior.svg and sigma.png on rank 0."""
    with session.group.together(f"writing {output}"):
        if session.group.is_first:
            from lediflow.evaluation.plots.prior import prior_figure
            from lediflow.evaluation.plots.style import write_figure

            histogram, calibration, coverage = (
                prior[key] for key in ("z_histogram", "calibration", "coverage")
            )
            figure = prior_figure(
                np.array(histogram["edges"]), np.array(histogram["counts"]), calibration["predicted"],
                calibration["observed"], coverage["nominal"], coverage["observed"],
            )  # fmt: skip
            write_figure(figure, output / "prior")
            maps = sigma_maps(session, auxiliary, signals, facts)
            with whole_or_absent(output / "sigma.png") as stream:
                maps.save(stream, "PNG")


def sigma_maps(
    session: Session, auxiliary: AuxiliaryModel, signals: ShardImages, facts: dict[str, Any]
) -> Image.Image:
    """The prior on the first images; sigma is bright where it is large."""
    decode = session.models.decoder(facts["codec"], session.command.codec_path, session.device)
    latents = signals.signals(range(min(SHOWN, len(signals))))
    found = prior_pictures(
        auxiliary,
        latents,
        flow=lambda start: start.x,
        decode=decode,
        seed=session.command.seed,
        width=recorded_width(facts),
    )
    sigma = found["prior_sigma"].mean(dim=1, keepdim=True)
    side = found["photographs"].shape[-1]
    shown = torch.nn.functional.interpolate(sigma / sigma.amax(), (side, side)) * 2 - 1
    rows = [found["photographs"], found["prior_mean"], shown, found["prior_draw"]]
    width = recorded_width(facts)
    about = f", {describe_start(width)}" if width != Width() else ""
    return labelled_grid(
        rows, ["photograph", "mean", f"sigma{about}, white: {sigma.amax().item():.2f}", "a draw"]
    )


def describe(prior: dict[str, Any]) -> str:
    """The main diagnostics in a line."""
    parts = {
        "nll": f"{prior['nll_nats']:.3f} nats",
        **({"PSNR": f"{prior['psnr']:.1f} dB"} if "psnr" in prior else {}),
        "latent": f"{prior['kl_nats_per_image']:.1f} nats, "
        f"{prior['active_units']} of {prior['latent_entries']} entries in use",
        "variance of z": f"{prior['z_variance']:.2f}",
        "calibration error": f"{prior['ence']:.1%}",
        "coverage error": f"{prior['coverage_error']:.1%}",
        "sigma": f"{prior['sigma_mean']:.3f}",
        "typical sigma": f"{prior['sigma_geometric_mean']:.3f}",
        "at the floor": f"{prior['share_at_floor']:.1%}",
    }
    return f"prior on {prior['images']:,} images: " + ", ".join(
        f"{name} {text}" for name, text in parts.items()
    )
