"""Loads the pipeline of an editing command, and describes the command for edit.json and for the pictures' origin."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lediflow.config.building.models import stored_path
from lediflow.config.building.pipeline import load_pipeline, pipeline_hashes
from lediflow.config.composition.advice import require_export
from lediflow.editing.config import EditOptions
from lediflow.editing.folder import Origin
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.methods import is_flow_map

# options that results do not depend on, or that name places; records have the latter apart
IRRELEVANT = ("batch_size", "device", "paths", "runtime", "metadata", "round_trip_warning")
PLACES = (
    "run", "sampler", "output", "codec_path", "image", "images", "mask", "masks",
    "with_images", "without_images", "direction",
)  # fmt: skip
PRIVATE = ("source", "masks", "key", "persons", "mapping")  # places that no record has


def load_editor(
    command: EditOptions,
    images: int,
    *,
    inverts_sampler: bool = False,
    inverts_flow: bool = False,
    is_of_pixels: bool = False,
) -> LeDiFlowPipeline:
    """The pipeline; UserError for models that this edit is impossible with: what it inverts must be a velocity.

    `is_of_pixels`: the edit has no way through a codec.
    """
    flow = RunFolder(Path(command.run))
    require_export(flow, "the flow model", "python -m lediflow.train stage=flow ...")
    facts = flow.exported_facts()
    if facts["prior"] == "gaussian":
        raise UserError(
            f"run={command.run} is a Gaussian baseline: it has no latent z of an image to edit with; give a flow with "
            "a learned prior (prior=learned) and sampler="
        )
    if is_of_pixels and facts["codec"]["name"] != "pixels":
        raise UserError(
            f"run={command.run} was trained on latents of codec={facts['codec']['name']}; this edit needs models of "
            "pixels (codec=pixels)"
        )
    pipeline = load_pipeline(
        command.run, command.sampler, device=command.device, codec_path=command.codec_path
    )
    checked = [
        ("run", inverts_flow, pipeline.velocity),
        ("sampler", inverts_sampler, pipeline.latent_sampler),
    ]
    for option, is_inverted, model in checked:
        if is_inverted and is_flow_map(model):
            raise UserError(
                f"{option}={getattr(command, option)} is a flow map, which has no velocity to follow from image to "
                "noise or along known pixels; give its teacher, or another run without stage.objective=flow_map"
            )
    pipeline.class_numbers(command)
    return pipeline.use(command.runtime, command.precision, images=images)


def settings_of(command: EditOptions) -> dict[str, Any]:
    """The options that results depend on, without places."""
    left_out = (*IRRELEVANT, *PLACES, *PRIVATE)
    return {key: value for key, value in dataclasses.asdict(command).items() if key not in left_out}


def weights_of(command: EditOptions) -> dict[str, str]:
    """SHA-256 of the weights of the three models."""
    parent = RunFolder(Path(command.run)).exported_facts()["parent"]["sha256"]
    return {**pipeline_hashes(command.run, command.sampler), "auxiliary": parent}


def origin_of(name: str, command: EditOptions, about: dict[str, Any]) -> Origin | None:
    """What is written into every picture; None if metadata=false."""
    if not command.metadata:
        return None
    return {
        "command": f"lediflow.edit {name}",
        "settings": settings_of(command),
        "weights": weights_of(command),
        **about,
    }


def record_of(name: str, command: EditOptions, result: dict[str, Any]) -> dict[str, Any]:
    """The content of edit.json, except for the names of the files."""
    options = dataclasses.asdict(command)
    places = {key: options[key] for key in PLACES if options.get(key)}
    stored = {
        key: [stored_path(path) for path in value] if isinstance(value, list) else stored_path(value)
        for key, value in places.items()
    }
    return {
        "command": name,
        "settings": settings_of(command),
        "weights": weights_of(command),
        "places": stored,
        **result,
    }
