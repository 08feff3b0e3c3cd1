"""Image shards -> latent shards, sample by sample, in the same order and with the same keys.

Processes share the shards without communicating: process `rank` of `ranks` makes every `ranks`-th shard, and the
process that finds all of them finished writes the index. The bytes depend neither on interruptions nor on the number
of processes.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lediflow.codecs import Codec, CodecConfig, build_codec
from lediflow.data.latents.check import Check, check_latents
from lediflow.data.latents.encoder import DTYPES, EncodeTask, ShardEncoder
from lediflow.data.latents.statistics import channel_statistics, from_json, merged
from lediflow.data.shards.build import Part, ShardBuild
from lediflow.data.shards.index import Contents, ShardIndex
from lediflow.data.shards.reader import ShardReader
from lediflow.data.workers import Progress
from lediflow.errors import UserError
from lediflow.ranges import bounded, check_ranges

MOST_THREADS = 16


@dataclass(kw_only=True)
class EncodeConfig:
    """Which image shards are encoded by which codec, and how."""

    source: str  # folder of finished image shards
    output: str  # folder for the latent shards; a finished set is reused, an interrupted one continued
    codec: CodecConfig = field(default_factory=CodecConfig)
    dtype: str = "float16"  # dtype of stored latents; "float32" doubles their size (pixels stay uint8)
    flipped: bool = False  # also store the latents of the mirrored image: twice the work and space
    batch_size: int = bounded(
        32, at_least=1
    )  # images encoded at once: larger is faster and needs more memory
    compile: bool = False  # torch.compile the encoder: takes a minute at the start, then faster on a GPU
    device: str = "auto"  # "auto" uses a GPU if there is one
    # threads that decode images while the device works; 0: one per CPU core of this job
    threads: int = bounded(0, at_least=0)
    rank: int = bounded(0, at_least=0)  # index of this process among `ranks`
    # processes that share the shards; 0: from the environment of torchrun or SLURM
    ranks: int = bounded(0, at_least=0)
    check: int = bounded(0, at_least=0)  # number of latents to decode and compare with their images


@dataclass(frozen=True)
class Encoded:
    """The result of `encode`."""

    index: ShardIndex | None  # None while other processes still make shards
    is_reused: bool  # the set was already finished
    missing: int = 0  # shards that other processes have yet to make
    check: Check | None = None


def encode(config: EncodeConfig, progress: Progress | None = None) -> Encoded:
    """Make the missing latent shards of this process's share, and the index if all shards are finished."""
    _check(config)
    reader = _image_reader(config)
    device = _device(config.device)
    codec = build_codec(config.codec, device)
    build = ShardBuild(Path(config.output), _contents(reader.index, codec, config))
    encoder = ShardEncoder(
        reader, codec, build, device, config.batch_size, config.threads or _cores(), config.compile
    )
    encoded = _completed(config, build, encoder, progress)
    if encoded.index is None or not config.check:
        return encoded
    latents = ShardReader(encoded.index)
    options: dict[str, Any] = {"batch_size": config.batch_size, "device": device, "folder": build.root}
    return replace(encoded, check=check_latents(reader, latents, codec, config.check, **options))


def _completed(
    config: EncodeConfig, build: ShardBuild, encoder: ShardEncoder, progress: Progress | None
) -> Encoded:
    if index := build.finished():
        return Encoded(index, is_reused=True)
    tasks = _tasks(encoder.reader.index)
    build.complete(tasks[config.rank :: max(config.ranks, 1)], encoder.parts, progress)
    parts = build.recorded(tasks)
    if len(parts) == len(tasks):
        return Encoded(build.finish(parts, _statistics(parts), encoder.reader.index.names), is_reused=False)
    # another process has written the index and removed the records, or there is work left
    return Encoded(build.finished(), is_reused=False, missing=len(tasks) - len(parts))


def _check(config: EncodeConfig) -> None:
    check_ranges(config)
    if config.dtype not in DTYPES:
        raise UserError(f"dtype={config.dtype} is not known; choose one of {', '.join(DTYPES)}")
    if config.rank >= max(config.ranks, 1):
        raise UserError(
            f"rank={config.rank} of ranks={config.ranks} does not exist; ranks are numbered from 0 to ranks - 1"
        )


def _image_reader(config: EncodeConfig) -> ShardReader:
    reader = ShardReader.open(config.source)
    if reader.index.contents.kind != "images":
        raise UserError(
            f"source={config.source} holds {reader.index.contents.kind}, not images; "
            "give the folder that lediflow.prepare made"
        )
    return reader


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


def _contents(source: ShardIndex, codec: Codec, config: EncodeConfig) -> Contents:
    images = source.contents
    channels, height, width = codec.latent_shape(images.image_size, images.shape[0])
    record: dict[str, Any] = codec.record() | {"has_logvar": codec.is_stochastic}
    dtype = "uint8" if codec.is_exact else config.dtype
    how = {"dtype": dtype, "flipped": config.flipped, "batch_size": config.batch_size}
    if not codec.is_exact:
        how |= {"precision": config.codec.precision, "compile": config.compile}
    return Contents(
        kind="latents",
        payload="npy",
        shape=[2 * channels if codec.is_stochastic else channels, height, width],
        dtype=dtype,
        image_size=images.image_size,
        mode=images.mode,
        views=2 if config.flipped else 1,
        classes=images.classes,
        codec=record,
        made_from={"images": source.fingerprint, "codec": record} | how,
    )


def _tasks(source: ShardIndex) -> list[EncodeTask]:
    ends = source.shard_ends.tolist()
    return [EncodeTask(n, range(a, b)) for n, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True))]


def _statistics(parts: list[Part]) -> dict[str, list[float]]:
    return channel_statistics(merged(from_json(part.measured) for part in parts if part.measured))
