"""Builds the training stage of a command from its options and the frozen auxiliary model."""

from __future__ import annotations

from lediflow.config.building.trained_model import trained_spec
from lediflow.config.composition.schema import TrainCommand
from lediflow.flow.widening import Width
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import has_dropout, latent_shape
from lediflow.stages.auxiliary import AuxiliaryStage
from lediflow.stages.flow import FlowStage
from lediflow.stages.latent_sampler import LatentSamplerStage
from lediflow.stages.protocol import Stage


def build_trial_stage(command: TrainCommand, auxiliary: AuxiliaryModel | None) -> Stage:
    """A stage for trial passes; an unmeasured prior width is set to 1, which changes neither time nor memory."""
    stage = build_stage(command, auxiliary)
    if isinstance(stage, FlowStage) and stage.width is None:
        stage.width = Width(added=1.0)
    return stage


def build_stage(command: TrainCommand, auxiliary: AuxiliaryModel | None) -> Stage:
    """The stage named by command.stage; `auxiliary` is the frozen parent, None if the stage has none."""
    spec, drops = command.model.auxiliary, has_dropout(trained_spec(command))
    match command.stage.name:
        case "auxiliary":
            shape = latent_shape(spec, command.model.image_size, command.model.image_size)
            return AuxiliaryStage(
                command.stage, latent_shape=shape, logvar_floor=spec.logvar_floor, has_dropout=drops
            )
        case "flow":
            classes = command.model.velocity.num_classes
            return FlowStage(command.stage, auxiliary, num_classes=classes, has_dropout=drops)
        case _:
            assert auxiliary is not None  # load_parent raises without one
            return LatentSamplerStage(command.stage, auxiliary, has_dropout=drops)
