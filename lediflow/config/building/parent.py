"""Loads the auxiliary model that flow and latent sampler depend on, and checks that it fits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.codecs.protocol import describe_codec
from lediflow.config.building.pipeline import load_export
from lediflow.config.composition.advice import auxiliary_command
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.reader import ShardReader
from lediflow.errors import UserError
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import latent_shape
from lediflow.run_folder import RunFolder
from lediflow.stages import stage_kind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """The frozen auxiliary model that a stage depends on, identified by the hash of its weights."""

    model: AuxiliaryModel
    path: str
    sha256: str
    facts: dict[str, Any]  # its export/config.json


def has_parent(command: TrainCommand) -> bool:
    """Whether the stage depends on an auxiliary model."""
    return stage_kind(command.stage.name).has_parent and command.prior == "learned"


def load_parent(command: TrainCommand) -> Parent | None:
    """Load the auxiliary model; None if the stage needs none. UserError, with a command, if it is not trained yet."""
    if not has_parent(command):
        return None
    if command.parent is None:
        raise UserError(
            f"stage={command.stage.name} builds on a trained auxiliary model; give its run folder: parent=RUN_DIR"
        )
    folder = RunFolder(Path(command.parent))
    if not folder.is_exported:
        role = f"the auxiliary model that stage={command.stage.name} builds on"
        folder.require_export(role, auxiliary_command(command, folder.root))
    model = load_export(AuxiliaryModel, folder.export, "the run of stage=auxiliary")
    check_latents(command, model, folder.root)
    return Parent(
        model.eval().requires_grad_(False), str(folder.root), folder.weights_hash(), folder.exported_facts()
    )


def check_latents(command: TrainCommand, parent: AuxiliaryModel, folder: Path) -> None:
    """Reject a parent whose images or latents have another shape than the configuration describes."""
    size, ours = command.model.image_size, command.model.auxiliary
    if parent.spec.image_channels != ours.image_channels:
        raise UserError(
            f"parent={folder} was trained on images of {parent.spec.image_channels} channels, but model.channels="
            f"{ours.image_channels}; give a parent of this model, or the model options it was trained with"
        )
    found, expected = (latent_shape(spec, size, size) for spec in (parent.spec, ours))
    if found != expected:
        raise UserError(
            f"parent={folder} makes latents of {'x'.join(map(str, found))}, but model.auxiliary describes "
            f"{'x'.join(map(str, expected))}; give the model options that the parent was trained with"
        )


def check_parent_data(command: TrainCommand, parent: Parent, reader: ShardReader) -> None:
    """Reject a parent that was trained on other data, another codec or size, or without this run's augmentation."""
    size, theirs = parent.facts.get("image_size"), describe_codec(parent.facts.get("codec"))
    if size != command.model.image_size:
        raise UserError(
            f"parent={parent.path} was trained at image_size {size}, but model.image_size="
            f"{command.model.image_size}; give a parent of this size, or train one: stage=auxiliary"
        )
    if theirs != (ours := describe_codec(reader.index.contents.codec or {"name": "pixels"})):
        raise UserError(
            f"parent={parent.path} was trained on {theirs}, but data.path={command.data.path} holds {ours}; "
            "encode the data with the parent's codec, or train a parent on it: stage=auxiliary"
        )
    data = parent.facts.get("data", {})
    if command.data.augment.probability and not data.get("augmented", False):
        raise UserError(
            f"parent={parent.path} was trained on images as they are, but data.augment.probability="
            f"{command.data.augment.probability:g}: its prior does not fit augmented ones. Train a parent with these "
            "data.augment options and model.auxiliary.augmentation=true, or set data.augment.probability=0"
        )
    if data.get("fingerprint") != reader.index.fingerprint and not command.other_data:
        raise UserError(
            f"parent={parent.path} was trained on other data, {data.get('path')} (fingerprint "
            f"{str(data.get('fingerprint'))[:12]}), than data.path={command.data.path} "
            f"({reader.index.fingerprint[:12]}): its prior may not fit. Train a parent on this data (stage=auxiliary), "
            "or set other_data=true"
        )


def warn_of_seen_images(command: TrainCommand, parent: Parent, reader: ShardReader) -> None:
    """Warn if the parent was trained on images that this run holds out."""
    data = parent.facts.get("data", {})
    fraction = data.get("held_out_fraction") or 0.0
    if data.get("fingerprint") == reader.index.fingerprint and fraction < command.data.held_out_fraction:
        log.warning(
            "parent=%s was trained with data.held_out_fraction=%g, this run with %g: its parent has seen images that "
            "are held out here, so held-out losses are too low if it memorises; train both with the same fraction",
            parent.path, fraction, command.data.held_out_fraction,
        )  # fmt: skip
