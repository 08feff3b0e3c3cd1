"""The models of a run: the one that it trains, with its stage and its first weights, and the frozen parent.

Initial weights (warm_start=) are those of a trained model, for a run that continues its training with other data or
options. The weight averages start from these weights as well. Optimizer state, clock and sample order start fresh.
The parent is the auxiliary model that flow and latent sampler depend on; records name it by the hash of its weights.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lediflow.codecs.protocol import describe_codec
from lediflow.config.composition.advice import auxiliary_command
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.reader import ShardReader
from lediflow.disk import sha256_of
from lediflow.errors import UserError
from lediflow.models import Model, Spec, build_model, load_as
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import WEIGHTS, Kind, describe, read_export, renamed_classes
from lediflow.models.specs import AuxiliarySpec, latent_shape
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder
from lediflow.stages import stage_kind
from lediflow.stages.protocol import Stage
from lediflow.text import shape_text, shown_hash
from lediflow.training.resume import differences

log = logging.getLogger(__name__)

NAMED = 3  # classes named in a warning


def build_trained_model(command: TrainCommand) -> Model:
    """Build the model that the command's stage trains, with random weights."""
    try:
        return build_model(trained_spec(command), command.engine.attention_route)
    except ValueError as error:
        raise UserError(str(error)) from error


def trained_spec(command: TrainCommand) -> Spec:
    """The specification of the model that the command's stage trains."""
    return stage_kind(command.stage.name).trained_spec(command)


def build_stage(command: TrainCommand, auxiliary: AuxiliaryModel | None) -> Stage:
    """The stage named by command.stage; `auxiliary` is the frozen parent, None if the stage has none."""
    return stage_kind(command.stage.name).build(command, auxiliary)


@dataclass(frozen=True)
class WarmStart:
    """Initial weights, identified by their hash."""

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    facts: dict[str, Any]  # its config.json


def load_warm_start(command: TrainCommand) -> WarmStart | None:
    """Load the weights that warm_start= names; None if it is null. UserError if kind or shapes do not match."""
    if command.warm_start is None:
        return None
    folder = export_folder(command.warm_start)
    try:
        config, weights = read_export(folder)
    except ValueError as error:
        raise UserError(f"warm_start={command.warm_start}: {error}") from error
    with torch.device("meta"):
        model = build_trained_model(command)
    check_kind(command, str(config.get("kind")), model)
    check_shapes(command, weights, model)
    return WarmStart(folder, config["weights_sha256"], weights, config)


def export_folder(path: str) -> Path:
    """The export of a run folder; the folder itself if it has none."""
    run = RunFolder(Path(path))
    return run.export if run.is_exported else run.root


def warm_start_hash(command: TrainCommand) -> str | None:
    """SHA-256 of the weights that warm_start= names; None if it is null."""
    if command.warm_start is None:
        return None
    weights = export_folder(command.warm_start) / WEIGHTS
    if not weights.is_file():
        raise UserError(
            f"warm_start={command.warm_start} has no {weights.name}; give a finished run or an export folder"
        )
    return sha256_of(weights)


def check_kind(command: TrainCommand, found: str, model: Model) -> None:
    """Reject weights of another kind of model."""
    wanted = describe(model.spec)["kind"]
    if found != wanted:
        raise UserError(
            f"warm_start={command.warm_start} holds a model of kind {found}, but stage={command.stage.name} trains "
            f"one of kind {wanted}; give a run of that stage"
        )


def check_shapes(command: TrainCommand, weights: dict[str, Tensor], model: Model) -> None:
    """Reject weights of other shapes; the message names the first that differs."""
    theirs = {name: shape_text(tensor.shape) for name, tensor in weights.items()}
    ours = {name: shape_text(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in [*ours, *theirs]:
        if theirs.get(name) != ours.get(name):
            raise UserError(
                f"warm_start={command.warm_start} has other weights than this model: {name} is "
                f"{theirs.get(name, 'not there')}, here {ours.get(name, 'not there')}; give the model= and prior= "
                "options that it was trained with"
            )


def load_export(kind: type[Kind], export: Path, wanted: str) -> Kind:
    """Load an exported model of class `kind`; RecordError for a damaged export, UserError for another class."""
    try:
        return load_as(kind, export)
    except RecordError:
        raise
    except ValueError as error:
        raise UserError(f"{error}; give {wanted}") from error


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
            f"stage={command.stage.name} builds on a trained auxiliary model, but parent= is not given; give the run "
            "folder of one: parent=RUN_DIR"
        )
    folder = RunFolder(Path(command.parent))
    if not folder.is_exported:
        role = f"the auxiliary model that stage={command.stage.name} builds on"
        folder.require_export(role, auxiliary_command(command, folder.root))
    model = load_trained_parent(command, folder)
    return Parent(
        model.eval().requires_grad_(False), str(folder.root), folder.weights_hash(), folder.exported_facts()
    )


def load_trained_parent(command: TrainCommand, folder: RunFolder) -> AuxiliaryModel:
    """Load the auxiliary model of a finished run; UserError if its images or latents have another shape than ours."""
    model = load_export(AuxiliaryModel, folder.export, "the run of stage=auxiliary")
    check_latents(command, model, folder.root)
    name_own_options(command, model, folder.root)
    return model


def parent_spec(command: TrainCommand) -> AuxiliarySpec:
    """The specification of the parent: that of its trained model, which counts in a run, or of the options before."""
    folder = RunFolder(Path(str(command.parent)))
    if command.parent is None or not folder.is_exported:
        return command.model.auxiliary
    return load_trained_parent(command, folder).spec


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
            f"parent={folder} makes latents of {shape_text(found)}, but model.auxiliary describes "
            f"{shape_text(expected)}; give the model options that the parent was trained with"
        )


def name_own_options(command: TrainCommand, parent: AuxiliaryModel, folder: Path) -> None:
    """Log the options of model.auxiliary that the trained parent has other values of, which are the ones that count."""
    theirs, ours = ({"model.auxiliary": asdict(spec)} for spec in (parent.spec, command.model.auxiliary))
    if changed := differences(theirs, ours):
        log.info("parent=%s keeps its own options: %s has no effect here", folder, "; ".join(changed))


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
            f"{shown_hash(data.get('fingerprint'))}), than data.path={command.data.path} "
            f"({shown_hash(reader.index.fingerprint)}): its prior may not fit. Train a parent on this data "
            "(stage=auxiliary), or set other_data=true"
        )


class TrainedBefore(Protocol):
    """A model that the run is made from: where its export is, and its config.json."""

    @property
    def path(self) -> str | Path: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...


def warn_of_seen_images(
    command: TrainCommand, reader: ShardReader, models: Mapping[str, TrainedBefore | None]
) -> None:
    """Warn for each model, by the option that names it, that was trained on images that this run holds out."""
    for option, model in models.items():
        data = (model.facts.get("data") if model else None) or {}
        fraction = data.get("held_out_fraction") or 0.0
        if data.get("fingerprint") == reader.index.fingerprint and fraction < command.data.held_out_fraction:
            log.warning(
                "%s=%s was trained with data.held_out_fraction=%g, this run with %g: it has seen images that are held "
                "out here, so held-out losses are too low if it memorises; train both with the same fraction",
                option, model.path if model else "", fraction, command.data.held_out_fraction,
            )  # fmt: skip


def warn_of_other_classes(reader: ShardReader, models: Mapping[str, TrainedBefore | None]) -> None:
    """Warn for each model, by the option that names it, that knows classes by other names than the data has."""
    ours = reader.index.contents.classes or []
    for option, model in models.items():
        if model is not None and (differing := renamed_classes(model.facts, ours)):
            log.warning(
                "%s=%s was trained on classes of other names (%d of %d differ: %s), so a label means something else to "
                "it; prepare the data with the classes of its training, unless it is to learn these anew",
                option, model.path, len(differing), len(ours), "; ".join(differing[:NAMED]),
            )  # fmt: skip


def absolute(path: str | Path) -> Path:
    """The absolute path without ".."; symbolic links are not resolved."""
    return Path(os.path.normpath(Path(path).absolute()))


def stored_path(path: str | Path) -> str:
    """The form of a path in records: absolute if it exists; URLs and names on a hub are kept unchanged."""
    return str(absolute(path) if os.path.lexists(path) else path)


def parent_record(path: Path, sha256: str, run: Path) -> dict[str, str]:
    """The record of the parent in the export of `run`."""
    parent = str(absolute(path))
    return {"path": parent, "sha256": sha256, "from_run": os.path.relpath(parent, absolute(run))}
