"""The samples of a run: its shards, checked against the model, and their stream."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lediflow.codecs import Latents
from lediflow.config.schema import TrainCommand
from lediflow.data.shards.foreign import has_index, lacks_index
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.config import training_samples
from lediflow.data.streams.latent_stream import LatentStream, is_worthwhile
from lediflow.data.streams.stream import SampleStream
from lediflow.data.synthetic import make_synthetic_shards
from lediflow.engine.protocol import Engine
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import latent_shape
from lediflow.stages.latent_sampler import LatentSamplerStageConfig

DRAWING_SECONDS = 60.0  # a hundred times what the first rank needs for toy pictures
INDEXING_SECONDS = 12 * 3600.0  # reading a whole set once, on slow storage


def open_data(command: TrainCommand, ranks: Ranks) -> ShardReader:
    """The shards, checked against the model; drawn first where the run asks for toy pictures."""
    path = command.data.path
    if command.synthetic_images:
        draw_toy_pictures(command, ranks)
    if not ranks.is_first and lacks_index(path):  # the first rank makes it
        wait_for_index(Path(path), INDEXING_SECONDS)
    reader = ShardReader.open(path, command.data.reading)
    check_samples(command, reader)
    return reader


def check_samples(command: TrainCommand, reader: ShardReader) -> None:
    """Refuse samples that are not what the model is for."""
    model = command.model
    found = tuple(reader.index.contents.signal_shape)
    if found != (model.channels, model.image_size, model.image_size):
        raise UserError(
            f"{command.data.path} holds samples of channels x height x width {'x'.join(map(str, found))}, but the "
            f"model is for {model.channels}x{model.image_size}x{model.image_size}; set model.channels={found[0]} "
            f"model.image_size={found[1]}, or prepare the data at the model's size"
        )
    if command.stage.name == "flow" and model.velocity.num_classes:
        check_classes(reader, model.velocity.num_classes)


def check_classes(reader: ShardReader, num_classes: int) -> None:
    """Refuse data whose labels a class-conditional flow has no rows for."""
    found = len(reader.index.contents.classes or [])
    if not 0 < found <= num_classes:
        raise UserError(
            f"{reader.index.root} has {found} classes, but the model is for {num_classes}; set "
            f"model.velocity.num_classes={found}{', which trains without labels' if not found else ''}"
        )


def draw_toy_pictures(command: TrainCommand, ranks: Ranks) -> None:
    """The first rank draws them; the others, which belong to no group yet, wait for the finished index."""
    path, model = Path(command.data.path), command.model
    if ranks.is_first:
        make_synthetic_shards(path, command.synthetic_images, model.image_size, model.channels)
    wait_for_index(path, DRAWING_SECONDS)


def wait_for_index(folder: Path, seconds: float) -> None:
    """Until another process has finished a set's index, or time runs out: what is missing is told later."""
    deadline = time.monotonic() + seconds
    while (not has_index(folder) or lacks_index(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)


def build_stream(
    command: TrainCommand, reader: ShardReader, engine: Engine, encoder: AuxiliaryModel | None = None
) -> SampleStream:
    """The stream of a rank's samples, or, with an encoder, of draws of their latents."""
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
    """Whether the latent sampler's images are encoded once, before training; UserError where that is impossible."""
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
