"""Which samples a run trains on, and what is refused before it starts or continues."""

from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Int64
from numpy import ndarray

from lediflow.data.augmentation import SMALLEST_SIDE, AugmentConfig
from lediflow.data.shards.index import ShardIndex
from lediflow.data.shards.reader import ShardReader
from lediflow.data.storage import ReadingConfig
from lediflow.data.streams.order import samples_of
from lediflow.errors import UserError
from lediflow.ranges import bounded
from lediflow.records import changes
from lediflow.text import shown_hash


@dataclass(kw_only=True)
class DataConfig:
    """Which samples a run trains on, and how they are loaded."""

    path: str = "???"  # folder or address (https://, s3://) of shards of images or latents
    flip_horizontal: bool = False  # mirror half of the images: doubles small sets of symmetric subjects
    flip_vertical: bool = False  # turn half of the images upside down; for textures and views from above
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    # fraction of the samples, chosen by key, that are never used for training
    held_out_fraction: float = bounded(0.0, at_least=0, at_most=1)
    # shards shuffled together: more shuffles better and reads more files at once; 0: all shards
    shuffle_window: int = bounded(8, at_least=0)
    last_batch: str = "fill"  # last batch of an epoch. fill: complete it from the next epoch | drop: omit it
    # loading threads per rank; more help for shards of pictures, one is best for latents
    threads: int = bounded(2, at_least=1)
    # host memory of a rank for pictures that are decoded once, if all of a set fit; 0: decode them at every use
    decoded_gib: float = bounded(4.0, at_least=0)
    # fraction of samples that may be corrupt (they are replaced) before the run stops
    max_corrupt_share: float = bounded(0.001, at_least=0, at_most=1)
    reading: ReadingConfig = field(default_factory=ReadingConfig)


def training_samples(reader: ShardReader, config: DataConfig) -> Int64[ndarray, " samples"]:
    """Indices of the samples that are not held out; UserError if there are none."""
    samples = samples_of("train", reader.index.table["key"], config.held_out_fraction)
    if not len(samples):
        raise UserError(
            f"data.held_out_fraction={config.held_out_fraction} leaves none of the {len(reader)} samples of "
            f"{reader.index.root} for training; lower it"
        )
    return samples


def check_batches(global_batch: int, world_size: int, micro_batch: int) -> None:
    """UserError for a global batch that cannot be split into micro-batches on all ranks."""
    per_step = world_size * micro_batch
    if global_batch < 1 or global_batch % per_step:
        nearest = max(1, round(global_batch / per_step)) * per_step
        raise UserError(
            f"train.global_batch={global_batch} cannot be split into micro-batches of {micro_batch} on {world_size} "
            f"ranks; the nearest that can is {nearest}, or choose another engine.micro_batch"
        )


def check_flips(reader: ShardReader, config: DataConfig) -> None:
    """UserError for flips of latents: mirrored latents are not the latents of the mirrored image."""
    contents = reader.index.contents
    codec = (contents.codec or {"name": "pixels"})["name"]
    if codec == "pixels":
        return
    if config.flip_vertical or (config.flip_horizontal and contents.views < 2):
        asked = "data.flip_vertical=true" if config.flip_vertical else "data.flip_horizontal=true"
        raise UserError(
            f"{asked}, but data.path={reader.index.root} holds latents of {codec}, and mirrored latents are not the "
            f"latents of the mirrored image; set {asked.replace('true', 'false')}, or encode with flipped=true and use "
            "data.flip_horizontal=true"
        )


def check_augmentation(reader: ShardReader, config: DataConfig) -> None:
    """UserError for augmentation of latents and of images that are not square."""
    contents, asked = reader.index.contents, f"data.augment.probability={config.augment.probability:g}"
    codec = (contents.codec or {"name": "pixels"})["name"]
    if config.augment.probability and codec != "pixels":
        raise UserError(
            f"{asked} is set, but {reader.index.root} holds latents of {codec}, and transformed latents are not "
            "the latents of the transformed image; set data.augment.probability=0, or train on images"
        )
    _, height, width = contents.signal_shape
    if config.augment.probability and (height != width or width < SMALLEST_SIDE):
        raise UserError(
            f"{asked} is set, but {reader.index.root} holds images of {height}x{width}; augmentation is for squares "
            f"of {SMALLEST_SIDE} pixels or more: set data.augment.probability=0, or prepare the data as squares"
        )


def conditioning_augmentation(config: DataConfig) -> AugmentConfig:
    """The augmentation that the model is conditioned on, without the flips that data.flip_... already make."""
    augment = config.augment
    return replace(
        augment,
        flip_horizontal=augment.flip_horizontal and not config.flip_horizontal,
        flip_vertical=augment.flip_vertical and not config.flip_vertical,
    )


def check_data(before: str, index: ShardIndex) -> None:
    """UserError if a run would continue on other data than it began with."""
    if before != index.fingerprint:
        raise UserError(
            f"the run was trained on other data than data.path={index.root} "
            f"(index {shown_hash(before)} then, {shown_hash(index.fingerprint)} now); give the old data or start "
            "another run"
        )


def check_order(before: dict[str, Any], now: dict[str, Any]) -> None:
    """UserError if a run would continue with another order of samples."""
    if changed := changes(before, now):
        raise UserError(
            f"the run's order of samples was made with other settings ({changed}): samples would be repeated "
            "or missed; repeat the options of the first start, or start another run"
        )
