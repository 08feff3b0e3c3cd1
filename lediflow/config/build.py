"""From configuration to objects: the only place where a run's parts meet."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lediflow.config.contradiction import key_of_contradiction
from lediflow.config.load import load_export
from lediflow.config.schema import TrainCommand
from lediflow.data.index import INDEX_NAME
from lediflow.data.shards import ShardReader
from lediflow.data.stream import SampleStream
from lediflow.data.synthetic import make_synthetic_shards
from lediflow.engine.checkpoint import CheckpointFolder
from lediflow.engine.local import LocalEngine
from lediflow.engine.protocol import Engine
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.models import Model, Spec, build_model
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.groups import parameter_groups
from lediflow.models.specs import VelocitySpec, latent_shape
from lediflow.models.tree import describe_model
from lediflow.nn.specs import check_grid
from lediflow.stages.auxiliary import AuxiliaryStage
from lediflow.stages.flow import FlowStage
from lediflow.stages.latent_sampler import LatentSamplerStage
from lediflow.stages.protocol import Stage
from lediflow.tracking.protocol import Tracker
from lediflow.training.clock import Clock
from lediflow.training.loop import Training
from lediflow.training.run_folder import RunFolder

log = logging.getLogger(__name__)

PRIORS = ("learned", "gaussian")
DRAWING_SECONDS = 60.0  # a hundred times what the first rank needs for toy pictures


@dataclass(frozen=True)
class Parent:
    """The frozen auxiliary model a stage builds on, pinned by the hash of its weights."""

    model: AuxiliaryModel
    path: str
    sha256: str


def typed(config: DictConfig) -> Any:
    """The composed configuration as its dataclasses, every interpolation resolved."""
    try:
        return OmegaConf.to_object(config)
    except ValueError as error:  # a specification that contradicts itself
        key, message = key_of_contradiction(config), str(error)
        raise UserError(message if message.startswith(key) else f"{key}: {message}") from error


@dataclass
class BuiltRun:
    """A run ready to train, and what its export will say."""

    training: Training
    facts: dict[str, Any]


def build_run(command: TrainCommand, parent: Parent | None, tracker: Tracker, ranks: Ranks) -> BuiltRun:
    """Every part of one run, connected."""
    reader = open_data(command, ranks)
    torch.manual_seed(command.seed)
    model = build_trained_model(command)
    log.info("%s", describe_model(model))
    engine = build_engine(command, model, ranks)
    auxiliary = parent.model.to(engine.device) if parent else None
    training = Training(
        engine=engine,
        stage=build_stage(command, auxiliary),
        stream=build_stream(command, reader, engine),
        noise=SampleNoise(command.seed),
        clock=Clock(command.train.images, command.train.global_batch),
        tracker=tracker,
        checkpoints=CheckpointFolder(
            RunFolder(Path(command.run)).checkpoints, command.train.checkpoint.keep_last
        ),
        config=command.train,
        identity=identity(command) | {"parent": parent.sha256 if parent else None},
    )
    return BuiltRun(training, exported_facts(command, reader, parent))


def check_command(command: TrainCommand) -> None:
    if command.prior not in PRIORS:
        raise UserError(f"prior={command.prior!r} is unknown; use one of {', '.join(PRIORS)}")
    if command.prior == "gaussian" and command.stage.name != "flow":
        raise UserError(
            f"prior=gaussian is the flow-matching baseline and has one stage, flow; stage={command.stage.name} "
            "belongs to the learned prior"
        )
    coupling = getattr(command.stage, "coupling", "independent")
    if command.prior == "learned" and coupling != "independent":
        raise UserError(
            f"stage.coupling={coupling} needs prior=gaussian: a draw of the learned prior belongs to its image; leave "
            "stage.coupling=independent"
        )
    try:
        check_sizes(command)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_sizes(command: TrainCommand) -> None:
    """Refuse levels that cannot tile what their model will see, before anything is built."""
    model, size = command.model, command.model.image_size
    if command.stage.name == "flow":
        check_grid(model.velocity.levels, model.velocity.patch_size, size, size, key="model.velocity")
    if command.prior == "learned":
        _, height, width = latent_shape(model.auxiliary, size, size)
        if command.stage.name == "latent_sampler":
            check_grid(model.latent_sampler.levels, 1, height, width, key="model.latent_sampler")


def load_parent(command: TrainCommand) -> Parent | None:
    """The auxiliary model of flow and latent sampler; None where a stage needs none."""
    if command.stage.name == "auxiliary" or command.prior == "gaussian":
        return None
    folder = RunFolder(Path(command.parent or "(no parent= given)"))
    how = f"python -m lediflow.train experiment={command.name} stage=auxiliary data.path={command.data.path}"
    export = folder.require_export(f"the auxiliary model that stage={command.stage.name} builds on", how)
    model = load_export(AuxiliaryModel, export, "the run of stage=auxiliary")
    check_parent(command, model, folder.root)
    return Parent(model.eval().requires_grad_(False), str(folder.root), folder.weights_hash())


def check_parent(command: TrainCommand, parent: AuxiliaryModel, folder: Path) -> None:
    """Refuse a parent whose latents are not those that the configuration describes."""
    size = command.model.image_size
    found, expected = (latent_shape(spec, size, size) for spec in (parent.spec, command.model.auxiliary))
    if found != expected:
        raise UserError(
            f"parent={folder} makes latents of {'x'.join(map(str, found))}, but model.auxiliary describes "
            f"{'x'.join(map(str, expected))}; give the model options that the parent was trained with"
        )


def open_data(command: TrainCommand, ranks: Ranks) -> ShardReader:
    """The shards, checked against the model's size; drawn first where the run asks for toy pictures."""
    path, model = Path(command.data.path), command.model
    if command.synthetic_images:
        draw_toy_pictures(command, ranks)
    reader = ShardReader.open(path)
    found = tuple(reader.index.contents.signal_shape)
    if found != (model.channels, model.image_size, model.image_size):
        raise UserError(
            f"{path} holds samples of channels x height x width {'x'.join(map(str, found))}, but the model is for "
            f"{model.channels}x{model.image_size}x{model.image_size}; set model.channels={found[0]} "
            f"model.image_size={found[1]}, or prepare the data at the model's size"
        )
    if command.stage.name == "flow" and model.velocity.num_classes:
        check_classes(reader, model.velocity.num_classes)
    return reader


def check_classes(reader: ShardReader, num_classes: int) -> None:
    """Refuse data whose labels a class-conditional flow has no rows for."""
    found = len(reader.index.contents.classes or [])
    if not 0 < found <= num_classes:
        raise UserError(
            f"{reader.index.root} has {found} classes, but the model is for {num_classes}; set "
            f"model.velocity.num_classes={found}{', which trains without labels' if not found else ''}"
        )


def draw_toy_pictures(command: TrainCommand, ranks: Ranks) -> None:
    """The first rank draws them; the others, which belong to no group yet, wait for the finished index."""
    path, model = Path(command.data.path), command.model
    if ranks.is_first:
        make_synthetic_shards(path, command.synthetic_images, model.image_size, model.channels)
    deadline = time.monotonic() + DRAWING_SECONDS
    while not (path / INDEX_NAME).is_file() and time.monotonic() < deadline:
        time.sleep(0.05)


def build_trained_model(command: TrainCommand) -> Model:
    """The model that this command's stage trains, with fresh weights."""
    specs: dict[str, Spec] = {
        "auxiliary": command.model.auxiliary,
        "flow": velocity_spec(command),
        "latent_sampler": command.model.latent_sampler,
    }
    try:
        return build_model(specs[command.stage.name], command.engine.attention_route)
    except ValueError as error:
        raise UserError(str(error)) from error


def velocity_spec(command: TrainCommand) -> VelocitySpec:
    """The flow model hears of the auxiliary model's latent; the baseline hears of nothing."""
    model = command.model
    if command.prior == "gaussian":
        return dataclasses.replace(model.velocity, latent_shape=[])
    shape = latent_shape(model.auxiliary, model.image_size, model.image_size)
    return dataclasses.replace(model.velocity, latent_shape=list(shape))


def build_stage(command: TrainCommand, auxiliary: AuxiliaryModel | None) -> Stage:
    spec = command.model.auxiliary
    match command.stage.name:
        case "auxiliary":
            shape = latent_shape(spec, command.model.image_size, command.model.image_size)
            return AuxiliaryStage(command.stage, latent_shape=shape, logvar_floor=spec.logvar_floor)
        case "flow":
            return FlowStage(command.stage, auxiliary, num_classes=command.model.velocity.num_classes)
        case _:
            assert auxiliary is not None  # load_parent refuses to go on without
            return LatentSamplerStage(command.stage, auxiliary)


def build_engine(command: TrainCommand, module: nn.Module, ranks: Ranks) -> Engine:
    train, config = command.train, command.engine
    groups = parameter_groups(module, train.learning_rate, train.weight_decay)
    options: dict[str, Any] = {"global_batch": train.global_batch, "betas": (train.beta1, train.beta2)}
    try:
        match config.name:
            case "local":
                return LocalEngine(module, groups, config, ranks, **options)
            case "deepspeed":
                from lediflow.engine.deepspeed import DeepSpeedEngine  # heavy: only where it is used

                return DeepSpeedEngine(module, groups, config, ranks, **options)
    except ValueError as error:
        raise UserError(str(error)) from error
    raise UserError(f"engine.name={config.name!r} is unknown; use engine=local or engine=deepspeed")


def build_stream(command: TrainCommand, reader: ShardReader, engine: Engine) -> SampleStream:
    return SampleStream(
        reader,
        command.data,
        seed=command.seed,
        rank=engine.ranks.rank,
        world_size=engine.ranks.world_size,
        micro_batch=engine.micro_batch,
        global_batch=command.train.global_batch,
    )


def identity(command: TrainCommand) -> dict[str, Any]:
    """What a continued run must share with its start, besides the parent."""
    return {
        "stage": dataclasses.asdict(command.stage),
        "prior": command.prior,
        "seed": command.seed,
        "global_batch": command.train.global_batch,
        "model": dataclasses.asdict(command.model),
    }


def exported_facts(command: TrainCommand, reader: ShardReader, parent: Parent | None) -> dict[str, Any]:
    """What sampling must know besides the weights."""
    contents = reader.index.contents
    return {
        "stage": command.stage.name,
        "prior": command.prior,
        "image_size": command.model.image_size,
        "codec": contents.codec or {"name": "pixels"},
        "data": {
            "path": str(command.data.path),
            "fingerprint": reader.index.fingerprint,
            "samples": len(reader),
            "held_out_fraction": command.data.held_out_fraction,
        },
        "parent": {"path": parent.path, "sha256": parent.sha256} if parent else None,
        "seed": command.seed,
        "identity": identity(command),
    }
