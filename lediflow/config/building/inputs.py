"""What a run is made from: samples, parent and initial weights, and the identity that a continued run must share."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.codecs import Latents
from lediflow.config.building.models import (
    NAMED,
    Parent,
    WarmStart,
    check_parent_data,
    load_parent,
    load_warm_start,
    warn_of_other_classes,
    warn_of_seen_images,
)
from lediflow.config.building.teacher import (
    Teacher,
    check_teacher_data,
    draws_latents,
    identity_of,
    load_teacher,
)
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.foreign import has_index, lacks_index
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.config import training_samples
from lediflow.data.streams.stream import LatentStream, SampleStream, is_worthwhile
from lediflow.data.synthetic import make_synthetic_shards
from lediflow.engine.protocol import Engine, accumulation_steps
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.flow.widening import SCALE, WIDTH
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import latent_shape
from lediflow.stages import stage_kind
from lediflow.stages.distillation import TEACHER_OPTIONS, VELOCITY
from lediflow.text import shape_text

log = logging.getLogger(__name__)

DRAWING_SECONDS = 60.0  # a hundred times what rank 0 needs for toy pictures
INDEXING_SECONDS = 12 * 3600.0  # enough to read a whole data set once from slow storage

# options added in later releases, with the values that leave training unchanged
NEUTRAL_VALUES = {"dropout": 0, "beta_warmup_images": 0, "free_bits": 0, "is_flow_map": False, SCALE: 1}
# classes of a latent sampler, which in conf/ are those of the flow; other stages do not depend on them
CLASSES = ("latent_sampler", "num_classes")
# the same for options of one model; 0 or false: off
LATER_OPTIONS = (
    ("auxiliary", "augmentation"),
    ("latent_sampler", "augmentation"),
    CLASSES,
)


@dataclass(frozen=True)
class Inputs:
    """Samples, parent, initial weights and identity of a run."""

    reader: ShardReader
    parent: Parent | None
    warm_start: WarmStart | None
    teacher: Teacher | None
    identity: dict[str, Any]  # what must stay the same when the run is continued


def open_inputs(command: TrainCommand, ranks: Ranks) -> Inputs:
    """Open samples, parent and initial weights before anything is written; UserError if one does not fit."""
    batch_split(command, ranks.world_size)
    parent, warm_start = load_parent(command), load_warm_start(command)
    teacher = load_teacher(command) if command.teacher is not None else None
    reader = open_data(command, ranks)
    if parent:
        check_parent_data(command, parent, reader)
    if teacher:
        check_teacher_data(command, teacher, parent, reader)
    if ranks.is_first:
        models = {
            "parent": parent,
            "warm_start": warm_start,
            "teacher": teacher,
            "sampler": teacher.latents if teacher else None,
        }
        warn_of_seen_images(command, reader, models)
        warn_of_other_classes(reader, models)
        warn_of_empty_classes(command, reader)
    return Inputs(reader, parent, warm_start, teacher, full_identity(command, parent, warm_start, teacher))


def batch_split(command: TrainCommand, ranks: int) -> tuple[int, int]:
    """(micro-batch, accumulation) of a rank; UserError for a global batch that cannot be split so."""
    try:
        return accumulation_steps(command.train.global_batch, ranks, command.engine.micro_batch)
    except ValueError as error:
        raise UserError(str(error)) from error


# --- samples


def open_data(command: TrainCommand, ranks: Ranks) -> ShardReader:
    """Open the shards and check them against the model; rank 0 first draws toy pictures if the run asks for them."""
    path = command.data.path
    if not path.strip():  # allowed in dry runs
        raise UserError("data.path= is empty; give the folder of the shards")
    if command.synthetic_images:
        draw_toy_pictures(command, ranks)
    if not ranks.is_first and lacks_index(path):  # rank 0 writes it
        wait_for_index(Path(path), INDEXING_SECONDS)
    reader = ShardReader.open(path, command.data.reading)
    check_samples(command, reader)
    return reader


def check_samples(command: TrainCommand, reader: ShardReader) -> None:
    """Reject samples of another shape, or with other classes, than the model expects."""
    model = command.model
    found = tuple(reader.index.contents.signal_shape)
    if found != (model.channels, model.image_size, model.image_size):
        raise UserError(
            f"data.path={command.data.path} holds samples of channels x height x width {shape_text(found)}, but the "
            f"model is for {model.channels}x{model.image_size}x{model.image_size}; set model.channels={found[0]} "
            f"model.image_size={found[1]}, or prepare the data at the model's size"
        )
    if num_classes := trained_classes(command):
        check_classes(reader, num_classes, f"model.{stage_kind(command.stage.name).trains}.num_classes")


def trained_classes(command: TrainCommand) -> int:
    """Number of classes of the model that the command's stage trains; 0: none."""
    return getattr(getattr(command.model, stage_kind(command.stage.name).trains), "num_classes", 0)


def check_classes(reader: ShardReader, num_classes: int, option: str) -> None:
    """Reject data without labels, or with more classes than the model has embeddings for."""
    found = len(reader.index.contents.classes or [])
    if not 0 < found <= num_classes:
        raise UserError(
            f"data.path={reader.index.root} has {found} classes, but the model is for {num_classes}; set "
            f"{option}={found}{', which trains without labels' if not found else ''}"
        )


def warn_of_empty_classes(command: TrainCommand, reader: ShardReader) -> None:
    """Warn of classes of the model that no training image has, whose labels it does not learn."""
    if not (num_classes := trained_classes(command)):
        return
    samples = training_samples(reader, command.data)
    found = {*reader.index.table["label"][samples].tolist()}
    names = dict(enumerate(reader.index.contents.classes or []))
    if empty := [label for label in range(num_classes) if label not in found]:
        log.warning(
            "%d of the model's %d classes (%s%s) have no image among the %d that it is trained on: what is generated "
            "for their labels belongs to no class; prepare images of them, or leave their labels out when sampling",
            len(empty), num_classes, ", ".join(f"{n}: {names.get(n, 'no name')}" for n in empty[:NAMED]),
            ", ..." if empty[NAMED:] else "", len(samples),
        )  # fmt: skip


def draw_toy_pictures(command: TrainCommand, ranks: Ranks) -> None:
    """Rank 0 draws toy pictures; the others wait for the index (there is no process group yet for a barrier)."""
    path, model = Path(command.data.path), command.model
    if ranks.is_first:
        try:
            make_synthetic_shards(path, command.synthetic_images, model.image_size, model.channels)
        except UserError as error:
            # the message names an option of `prepare`, and may advise to empty a folder of photographs
            found = str(error).replace("output=", "data.path=", 1).partition("; choose another")[0]
            raise UserError(
                f"{found}. synthetic_images={command.synthetic_images} draws toy pictures there: to train on shards "
                "that are there, set synthetic_images=0, else choose another data.path"
            ) from error
    wait_for_index(path, DRAWING_SECONDS)


def wait_for_index(folder: Path, seconds: float) -> None:
    """Wait until another process has written the index, at most `seconds`; opening the shards reports a missing one."""
    deadline = time.monotonic() + seconds
    while (not has_index(folder) or lacks_index(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)


def build_stream(
    command: TrainCommand, reader: ShardReader, engine: Engine, encoder: AuxiliaryModel | None = None
) -> SampleStream:
    """The stream of this rank's samples; with an encoder, of draws of their latents."""
    options: dict[str, Any] = {
        "seed": command.seed,
        "rank": engine.ranks.rank,
        "world_size": engine.ranks.world_size,
        "micro_batch": engine.micro_batch,
        "global_batch": command.train.global_batch,
        "device": engine.device,
    }
    if encoder is None:
        return SampleStream(reader, command.data, **options)
    return LatentStream(
        reader, command.data, encode=lambda images: Latents(*encoder.encode(images)), **options
    )


def encodes_once(command: TrainCommand, reader: ShardReader, world_size: int) -> bool:
    """Whether the images of a stage on latents are encoded once, before training.

    Raises UserError if stage.encode_once=true but the samples differ each time they are seen.
    """
    asked = stage_kind(command.stage.name).encode_once(command.stage)
    if asked is False:
        return False
    is_drawn, is_augmented = reader.index.contents.has_logvar, command.data.augment.probability > 0
    if asked and is_drawn:
        raise UserError(
            f"stage.encode_once=true, but data.path={command.data.path} holds latents that are drawn again each time "
            "they are seen; leave stage.encode_once out"
        )
    if asked or is_drawn or is_augmented:
        return not (is_drawn or is_augmented)
    size = command.model.image_size
    return is_worthwhile(
        command.data,
        len(training_samples(reader, command.data)),
        latent_shape(command.model.auxiliary, size, size),
        images=command.train.images,
        world_size=world_size,
    )


# --- identity


def identity(command: TrainCommand) -> dict[str, Any]:
    """The part of the identity that the options define."""
    return {
        "stage": stage_options(command),
        "prior": command.prior,
        "seed": command.seed,
        "global_batch": command.train.global_batch,
        "model": model_options(command),
    }


def model_options(command: TrainCommand) -> dict[str, Any]:
    """Options of the models, without those that older runs do not record and that are off or of another stage."""
    options = dataclasses.asdict(command.model)
    trains = stage_kind(command.stage.name).trains
    for model, name in LATER_OPTIONS:
        is_of_another_stage = (model, name) == CLASSES and model != trains
        if is_of_another_stage or not options[model][name]:
            del options[model][name]
    return without_defaults(options)


def stage_options(command: TrainCommand) -> dict[str, Any]:
    """Options of the stage; without the width of the prior if that is Gaussian, or those of a teacher without one."""
    options = dataclasses.asdict(command.stage)
    if options.get("objective", VELOCITY) == VELOCITY:
        for name in ("objective", *TEACHER_OPTIONS):
            options.pop(name, None)
    if command.sampler is None or not draws_latents(command):
        options.pop("sampled_share", None)
    if command.prior == "gaussian":
        options.pop(WIDTH, None), options.pop(SCALE, None)
    if not trained_classes(command):
        for name in stage_kind(command.stage.name).later_class_options:
            options.pop(name)
    return without_defaults(options)


def without_defaults(options: Any) -> Any:
    """The options except those at neutral values, so that runs older than these options keep their identity."""
    if isinstance(options, list):
        return [without_defaults(entry) for entry in options]
    if not isinstance(options, dict):
        return options
    named = {name: value for name, value in options.items() if (name, value) not in NEUTRAL_VALUES.items()}
    return {name: without_defaults(value) for name, value in named.items()}


def full_identity(
    command: TrainCommand, parent: Parent | None, warm_start: WarmStart | None, teacher: Teacher | None
) -> dict[str, Any]:
    """The whole identity: options, and SHA-256 of the weights of the parent, of the start and of a teacher's models."""
    return (
        identity(command)
        | {
            "parent": parent.sha256 if parent else None,
            "warm_start": warm_start.sha256 if warm_start else None,
        }
        | (identity_of(teacher) if teacher else {})
    )
