"""Builds the objects of a training run from its configuration; the only place that connects them."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lediflow.config.building.inputs import Inputs, build_stream, encodes_once
from lediflow.config.building.micro_batch import fitted_micro_batch
from lediflow.config.building.models import (
    build_stage,
    build_trained_model,
    parent_record,
    stored_path,
    trained_spec,
)
from lediflow.config.building.pictures import PictureScenes
from lediflow.config.building.prior_width import width_facts
from lediflow.config.building.teacher import check_derivatives, latents_cost, set_teacher
from lediflow.config.composition.schema import TrainCommand
from lediflow.engine.checkpoints import CheckpointFolder, CheckpointWriter
from lediflow.engine.checkpoints.averages import Snapshots
from lediflow.engine.ema import BEST, roles
from lediflow.engine.engines import engine_kind
from lediflow.engine.hang_detection import Limits
from lediflow.engine.lease import Lease, NoLease, new_token
from lediflow.engine.protocol import Engine, EngineConfig, Fitting
from lediflow.engine.ranks import Ranks
from lediflow.engine.stop import StopRequest
from lediflow.engine.watchdog import Watchdog
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.export import describe
from lediflow.models.parameters import describe_model, parameter_groups
from lediflow.run_folder import RunFolder
from lediflow.stages import stage_kind
from lediflow.tracking.event_log import has_event
from lediflow.tracking.metrics import VALUES, of_stage
from lediflow.tracking.tracker import FencedTracker, Tracker, build_tracker
from lediflow.training.clock import Clock, highest_factor
from lediflow.training.config import TrainingConfig
from lediflow.training.held_out import HeldOut
from lediflow.training.held_out_monitor import HeldOutMonitor
from lediflow.training.pictures.monitor import PictureMaker, TrainingPictures
from lediflow.training.recording import Recorder
from lediflow.training.saving import Saving
from lediflow.training.state import Training
from lediflow.training.throughput import Throughput, parent_flops, peak_tflops, training_flops
from lediflow.training.validation import build_validation

log = logging.getLogger(__name__)

LOW_FACTOR = 0.5  # highest share of the learning rate in a run, below which a warning names the schedule


def build_run(
    command: TrainCommand, inputs: Inputs, ranks: Ranks, stop: StopRequest, lease: Lease | NoLease
) -> Training:
    """Build a run: model, engine, stage, data stream, checkpoints, validation and monitoring.

    Events and checkpoints are written only while the lease is held.
    """
    tracker = FencedTracker(tracker_of(command, is_writer=ranks.is_first), lease.holds)
    torch.manual_seed(command.seed)
    model = build_trained_model(command)
    log.info("%s", describe_model(model))
    set_first_weights(model, inputs)
    description = describe(model.spec)
    engine = build_engine(
        command,
        model,
        ranks,
        fitting=partial(fitted_micro_batch, command, model, inputs.parent, teacher=inputs.teacher),
    )
    # identifies this start of the run, so that files left by a killed start have another name
    session = engine.group.broadcast(new_token())
    frozen = engine.frozen(inputs.parent.model) if inputs.parent else None
    stage = build_stage(command, frozen)
    if inputs.teacher:
        check_derivatives(command, inputs.teacher, engine.device)
        set_teacher(command, stage, inputs.teacher, model, engine.frozen)
    is_encoded = encodes_once(command, inputs.reader, ranks.world_size)
    stream = build_stream(command, inputs.reader, engine, frozen if is_encoded else None)
    warn_of_short_run(command.train)
    clock = Clock(command.train.images, command.train.global_batch)

    def report(event: str, **values: Any) -> None:
        tracker.record(event, clock.images_seen, **values)

    watchdog = Watchdog(Path(command.run), ranks, Limits(**vars(command.watchdog)), report, session=session)
    held_out = build_held_out(command, inputs, engine, tracker)
    throughput = throughput_of(command, inputs, engine, is_encoded=is_encoded)
    return Training(
        engine=engine,
        stage=stage,
        stream=stream,
        noise=SampleNoise(command.seed),
        clock=clock,
        tracker=tracker,
        saving=Saving(build_writer(command, ranks, session, lease), engine, tracker, stop.observe),
        recorder=Recorder(engine, clock, tracker, throughput),
        held_out=held_out,
        pictures=build_pictures(
            command, engine, tracker, lease, picture_maker(command, inputs, engine, frozen)
        ),
        stop=stop,
        watchdog=watchdog,
        config=command.train,
        identity=inputs.identity,
        history=session,
        export=description | facts_for_export(command, inputs),
    )


def warn_of_short_run(train: TrainingConfig) -> None:
    """Warn if the run ends before its learning rate has come near the one that is set."""
    highest = highest_factor(train.schedule, train.images, train.global_batch)
    if highest < LOW_FACTOR:
        log.warning(
            "the learning rate reaches no more than %.2g of train.learning_rate=%g, because train.images=%d is short "
            "for train.schedule.warmup_images=%d and train.schedule.decay_images=%d; lower these, or train longer",
            highest, train.learning_rate, train.images, train.schedule.warmup_images, train.schedule.decay_images,
        )  # fmt: skip


def set_first_weights(model: nn.Module, inputs: Inputs) -> None:
    """Give a model with random weights those that the run begins with: of warm_start=, or of its teacher."""
    if inputs.warm_start:
        model.load_state_dict(inputs.warm_start.weights)
        log.info("beginning with the weights of %s", inputs.warm_start.path)
    elif inputs.teacher:
        model.load_state_dict(inputs.teacher.model.state_dict())
        log.info("learning from %s, beginning with its weights", inputs.teacher.path)


def tracker_of(command: TrainCommand, *, is_writer: bool) -> Tracker:
    """The event log of the run and its views; without a writer, one that records nothing."""
    return build_tracker(
        command.tracking,
        Path(command.run),
        total_images=command.train.images,
        is_writer=is_writer,
        title=f"{command.stage.name} ({command.prior} prior)",
        values=VALUES | of_stage(stage_kind(command.stage.name).values),
    )


def build_writer(
    command: TrainCommand, ranks: Ranks, session: str, lease: Lease | NoLease
) -> CheckpointWriter:
    """The writer of the run's checkpoints, and of snapshots of the averages next to them."""
    folder, config = RunFolder(Path(command.run)), command.train.checkpoint
    snapshots = Snapshots(folder.averages, config.snapshot_every_images)
    writer = CheckpointWriter(CheckpointFolder(folder.checkpoints, config), ranks, session, snapshots)
    writer.fence = lease.fence
    return writer


def build_held_out(command: TrainCommand, inputs: Inputs, engine: Engine, tracker: Tracker) -> HeldOutMonitor:
    """Validation on held-out samples and the history of their losses."""
    validation = build_validation(
        command.train.validation, command.data, inputs.reader, engine.device, needs_validation(command.train)
    )
    return HeldOutMonitor(
        engine,
        tracker,
        command.train,
        validation,
        HeldOut(validation.fingerprint if validation else ""),
        compared_from=stage_kind(command.stage.name).warmup_images(command.stage),
        is_logged=partial(has_event, RunFolder(Path(command.run)).events),
    )


def build_pictures(
    command: TrainCommand,
    engine: Engine,
    tracker: Tracker,
    lease: Lease | NoLease,
    maker: PictureMaker | None,
) -> TrainingPictures:
    """Pictures while training; only the holder of the lease writes them."""
    train = command.train
    return TrainingPictures(engine, tracker, train.pictures, train.log_every_images, maker, lease.holds)


def picture_maker(
    command: TrainCommand, inputs: Inputs, engine: Engine, auxiliary: AuxiliaryModel | None
) -> PictureMaker | None:
    """How the run makes pictures; None if they are switched off, or if its model has no place in generation."""
    if stage_kind(command.stage.name).place is None or not command.train.pictures.every_images:
        return None
    scenes = PictureScenes(command, inputs, engine, auxiliary)
    return PictureMaker(trained_spec(command), scenes, RunFolder(Path(command.run)).pictures)


def kept_roles(config: TrainingConfig) -> tuple[str, ...]:
    """Roles of the averaged weights, with `best` if the best weights are exported."""
    return (*roles(config.ema), *[BEST] * (config.export == BEST))


def needs_validation(config: TrainingConfig) -> str:
    """The option that needs held-out losses, as key=value; "" if none does."""
    if config.export == BEST:
        return f"train.export={config.export}"
    return f"train.patience_images={config.patience_images}" if config.patience_images else ""


def build_engine(
    command: TrainCommand, module: nn.Module, ranks: Ranks, fitting: Fitting | None = None
) -> Engine:
    """The engine named by engine.name; `fitting` finds the micro-batch if engine.micro_batch is 0."""
    train, config = command.train, engine_options(command)
    groups = parameter_groups(module, train.learning_rate, train.weight_decay)
    options: dict[str, Any] = {
        "global_batch": train.global_batch,
        "betas": (train.beta1, train.beta2),
        "averages": kept_roles(train),
        "fitting": fitting,
    }
    try:
        return engine_kind(config.name).build(module, groups, config, ranks, **options)
    except ValueError as error:
        raise UserError(str(error)) from error


def engine_options(command: TrainCommand) -> EngineConfig:
    """The engine's options; engine.cuda_graphs=null is false for a stage that waits for the CPU in every step."""
    is_waiting = stage_kind(command.stage.name).waits_for_cpu(command.stage)
    is_open = command.engine.cuda_graphs is None
    return replace(command.engine, cuda_graphs=False) if is_waiting and is_open else command.engine


def throughput_of(
    command: TrainCommand, inputs: Inputs, engine: Engine, *, is_encoded: bool = False
) -> Throughput:
    """FLOPs per image and the device's peak; `is_encoded`: latents were computed before training, without cost here."""
    parent, teacher = inputs.parent.model.spec if inputs.parent else None, inputs.teacher
    kind, size = stage_kind(command.stage.name), command.model.image_size
    flops = training_flops(kind, trained_spec(command), parent, size, kind.passes(command.stage))
    flops -= parent_flops(kind, parent, size) if is_encoded else 0
    if teacher and teacher.latents:
        flops += latents_cost(command, teacher.latents.model.spec, parent).flops
    peak = command.engine.peak_tflops
    if peak is None and engine.device.type == "cuda":
        peak = peak_tflops(torch.cuda.get_device_name(engine.device), engine.config.precision)
    return Throughput(flops, peak)


def facts_for_export(command: TrainCommand, inputs: Inputs) -> dict[str, Any]:
    """The facts in export/config.json that sampling and dependent runs need besides the weights."""
    index, parent, warm, teacher = inputs.reader.index, inputs.parent, inputs.warm_start, inputs.teacher
    facts = {
        "stage": command.stage.name,
        "prior": command.prior,
        **width_facts(command),  # None until measured, at the start of the run
        "image_size": command.model.image_size,
        "codec": index.contents.codec or {"name": "pixels"},
        "data": {
            "path": stored_path(command.data.path),
            "fingerprint": index.fingerprint,
            "samples": len(inputs.reader),
            "classes": index.contents.classes,
            "held_out_fraction": command.data.held_out_fraction,
            "augmented": command.data.augment.probability > 0,
        },
        "parent": parent_record(Path(parent.path), parent.sha256, Path(command.run)) if parent else None,
        "warm_start": {"path": stored_path(warm.path), "sha256": warm.sha256} if warm else None,
        "seed": command.seed,
        "identity": inputs.identity,
    }
    if teacher:
        facts["teacher"] = parent_record(Path(teacher.path), teacher.sha256, Path(command.run))
        if drawn := teacher.latents:
            facts["sampler"] = parent_record(Path(drawn.path), drawn.sha256, Path(command.run))
    return facts
