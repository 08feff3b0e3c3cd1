"""The stage that a command trains, over the frozen model that it builds on."""

from __future__ import annotations

from lediflow.config.schema import TrainCommand
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import latent_shape
from lediflow.stages.auxiliary import AuxiliaryStage
from lediflow.stages.flow import FlowStage
from lediflow.stages.latent_sampler import LatentSamplerStage
from lediflow.stages.protocol import Stage


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
