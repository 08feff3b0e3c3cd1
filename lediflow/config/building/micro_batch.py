"""Finds the largest micro-batch that fits, before the engine is built: on a GPU by trial passes of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from lediflow.config.building.models import Parent, build_stage, trained_spec
from lediflow.config.building.teacher import Teacher, set_teacher
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.streams.batch import Batch
from lediflow.engine.ema import roles
from lediflow.engine.memory import DeviceMemory, fit_host, fit_micro_batch, held, reserved_bytes
from lediflow.engine.precision import choose_precision, computing_in
from lediflow.engine.protocol import EngineConfig, accumulation_steps
from lediflow.engine.ranks import Ranks
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Width
from lediflow.host_memory import free_memory
from lediflow.models import count_parameters
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.cost import model_cost
from lediflow.models.specs import latent_shape
from lediflow.nn.cost import ModelCost
from lediflow.stages import stage_kind
from lediflow.stages.protocol import Stage


def fitted_micro_batch(
    command: TrainCommand,
    module: nn.Module,
    parent: Parent | None,
    device: torch.device,
    ranks: Ranks,
    agree: Callable[[int], int],
    teacher: Teacher | None = None,
) -> int:
    """The micro-batch for engine.micro_batch=0: the largest that fits next to the state of the engine.

    `agree` returns the minimum over ranks, so that all ranks use the same micro-batch.
    """
    share, _ = accumulation_steps(command.train.global_batch, ranks.world_size, 0)
    if device.type != "cuda":  # the ranks may all be on this machine
        return fit_host(share, activation_bytes(command, device), free_memory() // ranks.world_size, agree)
    parameters = count_parameters(module)
    config = replace(command.engine, precision=choose_precision(command.engine.precision, device))
    engine = held(parameters, config, ranks.world_size, averages=averages_of(command))
    stage = build_trial_stage(command, parent.model.to(device) if parent else None, teacher, module)
    if teacher:
        for frozen in teacher.models:
            frozen.to(device)
    trial = trial_of(command, module.to(device), stage, device)
    return fit_micro_batch(share, trial, reserved_bytes(parameters, engine), DeviceMemory(device), agree)


def activation_bytes(command: TrainCommand, device: torch.device) -> int:
    """Estimated bytes that one sample's activations take until its backward pass, in eager mode."""
    config = replace(command.engine, precision=choose_precision(command.engine.precision, device))
    return stage_kind(command.stage.name).passes(command.stage)[0] * cost_of(command, config).total.kept_bytes


def cost_of(command: TrainCommand, engine: EngineConfig) -> ModelCost:
    """Cost of the trained model for one sample; the engine's precision is resolved."""
    size = command.model.image_size
    if stage_kind(command.stage.name).on_latents:
        size = latent_shape(command.model.auxiliary, size, size)[-1]
    dtype = torch.bfloat16 if engine.precision == "bfloat16" else torch.float32
    return model_cost(
        trained_spec(command), size, size, dtype=dtype, recompute=engine.activation_checkpointing
    )


def build_trial_stage(
    command: TrainCommand,
    auxiliary: AuxiliaryModel | None,
    teacher: Teacher | None = None,
    student: nn.Module | None = None,
) -> Stage:
    """A stage for trial passes of a student; an unmeasured width is set to 1, which changes neither time nor memory."""
    stage = build_stage(command, auxiliary)
    if teacher and student is not None:
        set_teacher(command, stage, teacher, student, lambda model: model)
    if stage_kind(command.stage.name).has_width(stage) and stage.width is None:
        stage.width = Width(added=1.0)
    return stage


def averages_of(command: TrainCommand) -> int:
    """Number of weight averages: one with a half-life, and one for each EMA profile."""
    return len(roles(command.train.ema))


def trial_of(
    command: TrainCommand, module: nn.Module, stage: Stage, device: torch.device
) -> Callable[[int], None]:
    """A function that runs a number of blank samples forward and backward, in eager mode.

    A compiled model keeps no more activations than an eager one.
    """
    noise, config = SampleNoise(command.seed), command.engine
    called = computing_in(
        choose_precision(config.precision, device),
        module,
        device,
        compile_mode=None,
        recompute=config.activation_checkpointing,
    )

    def trial(samples: int) -> None:
        try:
            stage.loss(called, blank_batch(command, samples, device), noise).loss.backward()
        finally:
            module.zero_grad(set_to_none=True)

    return trial


def blank_batch(command: TrainCommand, samples: int, device: torch.device) -> Batch:
    """A batch of the right shape: grey images, all of class 0."""
    model = command.model
    shape = (samples, model.channels, model.image_size, model.image_size)
    return Batch(
        ids=torch.arange(samples, device=device),
        keys=[""] * samples,
        images=torch.zeros(shape, device=device),
        labels=torch.zeros(samples, dtype=torch.long, device=device),
    )
