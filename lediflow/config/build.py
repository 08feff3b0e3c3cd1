"""From configuration to objects: the only place where a run's parts meet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lediflow.config.contradiction import key_of_contradiction
from lediflow.config.dataset import build_stream
from lediflow.config.inputs import Inputs
from lediflow.config.schema import TrainCommand
from lediflow.config.trained_model import build_trained_model
from lediflow.engine.checkpoint import CheckpointFolder
from lediflow.engine.local import LocalEngine
from lediflow.engine.protocol import Engine
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.groups import parameter_groups
from lediflow.models.specs import latent_shape
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


def build_run(command: TrainCommand, inputs: Inputs, tracker: Tracker, ranks: Ranks) -> BuiltRun:
    """Every part of one run, connected."""
    torch.manual_seed(command.seed)
    model = build_trained_model(command)
    log.info("%s", describe_model(model))
    if inputs.warm_start:
        model.load_state_dict(inputs.warm_start.weights)
        log.info("beginning with the weights of %s", inputs.warm_start.path)
    engine = build_engine(command, model, ranks)
    auxiliary = inputs.parent.model.to(engine.device) if inputs.parent else None
    training = Training(
        engine=engine,
        stage=build_stage(command, auxiliary),
        stream=build_stream(command, inputs.reader, engine),
        noise=SampleNoise(command.seed),
        clock=Clock(command.train.images, command.train.global_batch),
        tracker=tracker,
        checkpoints=CheckpointFolder(
            RunFolder(Path(command.run)).checkpoints, command.train.checkpoint.keep_last
        ),
        config=command.train,
        identity=inputs.identity,
    )
    return BuiltRun(training, exported_facts(command, inputs))


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


def exported_facts(command: TrainCommand, inputs: Inputs) -> dict[str, Any]:
    """What sampling and dependent runs must know besides the weights."""
    index, parent, warm = inputs.reader.index, inputs.parent, inputs.warm_start
    return {
        "stage": command.stage.name,
        "prior": command.prior,
        "image_size": command.model.image_size,
        "codec": index.contents.codec or {"name": "pixels"},
        "data": {
            "path": str(command.data.path),
            "fingerprint": index.fingerprint,
            "samples": len(inputs.reader),
            "held_out_fraction": command.data.held_out_fraction,
        },
        "parent": {"path": parent.path, "sha256": parent.sha256} if parent else None,
        "warm_start": {"path": str(warm.path), "sha256": warm.sha256} if warm else None,
        "seed": command.seed,
        "identity": inputs.identity,
    }
