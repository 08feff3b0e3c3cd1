"""Opens the shards of a run, checks them against the model, and builds the stream of samples."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lediflow.codecs import Latents
from lediflow.config.composition.schema import TrainCommand
from lediflow.data.shards.foreign import has_index, lacks_index
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.config import training_samples
from lediflow.data.streams.stream import LatentStream, SampleStream, is_worthwhile
from lediflow.data.synthetic import make_synthetic_shards
from lediflow.engine.protocol import Engine
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import latent_shape
from lediflow.stages import stage_kind
from lediflow.stages.latent_sampler import LatentSamplerStageConfig

DRAWING_SECONDS = 60.0  # a hundred times what rank 0 needs for toy pictures
INDEXING_SECONDS = 12 * 3600.0  # enough to read a whole data set once from slow storage


def open_data(command: TrainCommand, ranks: Ranks) -> ShardReader:
    """Open the shards and check them against the model; rank 0 first draws toy pictures if the run asks for them."""
    path = command.data.path
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
            f"{command.data.path} holds samples of channels x height x width {'x'.join(map(str, found))}, but the "
            f"model is for {model.channels}x{model.image_size}x{model.image_size}; set model.channels={found[0]} "
            f"model.image_size={found[1]}, or prepare the data at the model's size"
        )
    if stage_kind(command.stage.name).trains == "velocity" and model.velocity.num_classes:
        check_classes(reader, model.velocity.num_classes)


def check_classes(reader: ShardReader, num_classes: int) -> None:
    """Reject data without labels, or with more classes than the flow has embeddings for."""
    found = len(reader.index.contents.classes or [])
    if not 0 < found <= num_classes:
        raise UserError(
            f"{reader.index.root} has {found} classes, but the model is for {num_classes}; set "
            f"model.velocity.num_classes={found}{', which trains without labels' if not found else ''}"
        )


def draw_toy_pictures(command: TrainCommand, ranks: Ranks) -> None:
    """Rank 0 draws toy pictures; the others wait for the index (there is no process group yet for a barrier)."""
    path, model = Path(command.data.path), command.model
    if ranks.is_first:
        make_synthetic_shards(path, command.synthetic_images, model.image_size, model.channels)
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
    """Whether the latent sampler's images are encoded once, before training.

    Raises UserError if stage.encode_once=true but the samples differ each time they are seen.
    """
    if not isinstance(command.stage, LatentSamplerStageConfig) or command.stage.encode_once is False:
        return False
    is_drawn, is_augmented = reader.index.contents.has_logvar, command.data.augment.probability > 0
    if command.stage.encode_once and is_drawn:
        raise UserError(
            f"stage.encode_once=true, but {command.data.path} holds latents that are drawn again each time they "
            "are seen; leave stage.encode_once out"
        )
    if command.stage.encode_once or is_drawn or is_augmented:
        return not (is_drawn or is_augmented)
    size = command.model.image_size
    return is_worthwhile(
        command.data,
        len(training_samples(reader, command.data)),
        latent_shape(command.model.auxiliary, size, size),
        images=command.train.images,
        world_size=world_size,
    )
