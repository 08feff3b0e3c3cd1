"""From configuration to objects: the only place where a run's parts meet."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lediflow.config.contradiction import key_of_contradiction
from lediflow.config.dataset import build_stream, open_data
from lediflow.config.parent import Parent
from lediflow.config.schema import TrainCommand
from lediflow.data.shards.reader import ShardReader
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
from lediflow.stages.auxiliary import AuxiliaryStage
from lediflow.stages.flow import FlowStage
from lediflow.stages.latent_sampler import LatentSamplerStage
from lediflow.stages.protocol import Stage
from lediflow.tracking.protocol import Tracker
from lediflow.training.clock import Clock
from lediflow.training.loop import Training
from lediflow.training.run_folder import RunFolder

log = logging.getLogger(__name__)


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
