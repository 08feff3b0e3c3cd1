"""The model that a command trains: its specification, and the model with random weights."""

from __future__ import annotations

import dataclasses

from lediflow.config.composition.schema import TrainCommand
from lediflow.errors import UserError
from lediflow.models import Model, Spec, build_model
from lediflow.models.specs import VelocitySpec, latent_shape


def build_trained_model(command: TrainCommand) -> Model:
    """Build the model that the command's stage trains, with random weights."""
    try:
        return build_model(trained_spec(command), command.engine.attention_route)
    except ValueError as error:
        raise UserError(str(error)) from error


def trained_spec(command: TrainCommand) -> Spec:
    """The specification of the model that the command's stage trains."""
    specs: dict[str, Spec] = {
        "auxiliary": command.model.auxiliary,
        "flow": velocity_spec(command),
        "latent_sampler": command.model.latent_sampler,
    }
    return specs[command.stage.name]


def velocity_spec(command: TrainCommand) -> VelocitySpec:
    """The specification of the flow model; conditioned on the auxiliary model's latent unless prior=gaussian."""
    model = command.model
    if command.prior == "gaussian":
        return dataclasses.replace(model.velocity, latent_shape=[])
    shape = latent_shape(model.auxiliary, model.image_size, model.image_size)
    return dataclasses.replace(model.velocity, latent_shape=list(shape))
