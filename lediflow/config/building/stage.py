"""The stage of a command, and the model that it trains with random weights, as its declaration builds them."""

from __future__ import annotations

from lediflow.config.composition.schema import TrainCommand
from lediflow.errors import UserError
from lediflow.flow.widening import Width
from lediflow.models import Model, Spec, build_model
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.stages import stage_kind
from lediflow.stages.flow import FlowStage
from lediflow.stages.protocol import Stage


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


def build_trial_stage(command: TrainCommand, auxiliary: AuxiliaryModel | None) -> Stage:
    """A stage for trial passes; an unmeasured prior width is set to 1, which changes neither time nor memory."""
    stage = build_stage(command, auxiliary)
    if isinstance(stage, FlowStage) and stage.width is None:
        stage.width = Width(added=1.0)
    return stage
