"""Loads an image pipeline from run folders, and checks that the exported models belong together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lediflow.codecs import CodecConfig, build_codec
from lediflow.config.building.places import find_parent
from lediflow.config.composition.advice import require_export
from lediflow.engine.ranks import choose_device
from lediflow.errors import UserError
from lediflow.models import load_as
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import Kind
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.records import RecordError, changes
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.stages import place_of, stages_in
from lediflow.training.prior_width import recorded_width


def load_pipeline(
    run: str, sampler: str | None, *, device: str = "auto", codec_path: str | None = None
) -> LeDiFlowPipeline:
    """Load the pipeline of a flow run; a learned prior also needs the latent sampler's run and their common parent."""
    flow = RunFolder(Path(run))
    export = require_export(flow, "the flow model", "python -m lediflow.train stage=flow ...")
    facts = flow.exported_facts()
    if place_of(facts["stage"]) != "flow":
        raise UserError(f"run={run} is a run of stage={facts['stage']}; give a run of {stages_in('flow')}")
    where = choose_device(device)
    decode = load_decoder(facts["codec"], codec_path, where)
    if facts["prior"] == "gaussian":
        if sampler is not None:
            raise UserError(f"run={run} is the Gaussian baseline, which has no latents; leave sampler= out")
        return LeDiFlowPipeline(
            load_export(VelocityModel, export, "a run of stage=flow"),
            None,
            None,
            image_size=facts["image_size"],
            decode=decode,
        ).to(where)
    if sampler is None:
        raise UserError(
            f"run={run} starts from a learned prior; give the run of its latent sampler: sampler=RUN_DIR"
        )
    latent = RunFolder(Path(sampler))
    latent_export = require_export(
        latent, "the latent sampler", "python -m lediflow.train stage=latent_sampler ..."
    )
    parent = _common_parent(facts, latent.exported_facts(), run, sampler)
    return LeDiFlowPipeline(
        load_export(VelocityModel, export, "a run of stage=flow"),
        load_export(AuxiliaryModel, parent, "a run of stage=auxiliary"),
        load_export(LatentSampler, latent_export, "a run of stage=latent_sampler"),
        image_size=facts["image_size"],
        decode=decode,
        prior_widening=recorded_width(facts).added,
        prior_scale=recorded_width(facts).scale,
    ).to(where)


def load_export(kind: type[Kind], export: Path, wanted: str) -> Kind:
    """Load an exported model of class `kind`; RecordError for a damaged export, UserError for another class."""
    try:
        return load_as(kind, export)
    except RecordError:
        raise
    except ValueError as error:
        raise UserError(f"{error}; give {wanted}") from error


def _common_parent(flow: dict[str, Any], sampler: dict[str, Any], run: str, sampler_run: str) -> Path:
    """The export of the auxiliary model that both runs were trained with; UserError if they had different ones."""
    ours, theirs = flow["parent"], sampler.get("parent") or {}
    if ours["sha256"] != theirs.get("sha256"):
        raise UserError(
            f"run={run} was trained on the auxiliary model {ours['path']} ({ours['sha256'][:12]}), "
            f"sampler={sampler_run} on {theirs.get('path')} ({str(theirs.get('sha256'))[:12]}); use runs of one parent"
        )
    return find_parent({Path(run): ours, Path(sampler_run): theirs}, ours["sha256"]).export


def load_decoder(
    record: dict[str, Any], path: str | None, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The decoder of the codec that encoded a run's data; UserError if the weights are not the recorded ones."""
    codec = build_codec(CodecConfig(name=record["name"], path=path or record.get("path")), device)
    if changed := changes({**codec.record(), **record}, codec.record()):
        raise UserError(
            f"codec_path={path} holds other weights of {record['name']} than the run's data was encoded with "
            f"({changed}); give the codec.path that lediflow.encode was run with"
        )
    return codec.decode


def pipeline_hashes(run: str, sampler: str | None) -> dict[str, str]:
    """SHA-256 of each exported model, by the name of its stage."""
    named = {"flow": run, "latent_sampler": sampler}
    return {name: RunFolder(Path(path)).weights_hash() for name, path in named.items() if path is not None}
