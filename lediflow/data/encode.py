"""Image shards -> latent shards, sample by sample, in the same order and with the same keys.

Processes share the shards without communicating: process `rank` of `ranks` makes every `ranks`-th shard, and the
process that finds all of them finished writes the index. The bytes depend neither on interruptions nor on the number
of processes.

Inside a process, the work is arranged so that the device seldom waits:

    threads read and decode images -> one thread feeds the device -> one copies latents back and packs them
    -> the caller's thread writes

Each stage prefetches from the one before it, also across the ends of shards. Every shard starts a new batch, and all
stages keep their order, so the bytes of a shard depend on its images alone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.codecs import Codec, CodecConfig, Latents, build_codec
from lediflow.data.latents import (
    DTYPES,
    ChannelSums,
    ReconstructionCheck,
    Stored,
    channel_statistics,
    check_latents,
    check_range,
    from_json,
    measure,
    merged,
    npy_bytes,
    packed,
    padded,
    to_json,
)
from lediflow.data.shards.build import Part, ShardBuild, write_part
from lediflow.data.shards.index import Contents, ShardIndex
from lediflow.data.shards.reader import ShardReader
from lediflow.data.shards.writer import Sample
from lediflow.data.workers import OnProgress, prefetch
from lediflow.errors import UserError
from lediflow.ranges import bounded, check_ranges

MOST_THREADS = 16  # of the default for `threads`
Images = Float[Tensor, "batch channels height width"]


@dataclass(kw_only=True)
class EncodeConfig:
    """Which image shards are encoded by which codec, and how."""

    source: str  # folder of finished image shards
    output: str  # folder for the latent shards; a finished set is reused, an interrupted one continued
    codec: CodecConfig = field(default_factory=CodecConfig)
    dtype: str = "float16"  # dtype of stored latents; "float32" doubles their size (pixels stay uint8)
    flipped: bool = False  # also store the latents of the mirrored image: twice the work and space
    # images encoded at once: larger is faster and needs more memory
    batch_size: int = bounded(32, at_least=1)
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
    check: ReconstructionCheck | None = None


@dataclass(frozen=True)
class EncodeTask:
    """One shard to encode: its number, and its samples in the source."""

    number: int
    samples: range

    def __len__(self) -> int:
        return len(self.samples)


class EncodeBatch(NamedTuple):
    """Samples of one shard on their way through the stages."""

    task: EncodeTask
    samples: range
    content: Any = None  # stored pixels, then Latents per view on the device, then Packed


class Packed(NamedTuple):
    """Encoded samples, ready to be written to a tar."""

    views: list[Stored]
    measured: ChannelSums


@dataclass(frozen=True)
class ShardEncoder:
    """Encodes shards one after the other, through the stages described at the top of this module."""

    reader: ShardReader
    codec: Codec
    build: ShardBuild
    device: torch.device
    batch_size: int
    threads: int  # threads that decode images
    is_compiled: bool

    def parts(self, tasks: Sequence[EncodeTask]) -> Iterator[Part]:
        """Make these shards in order, yielding the record of each."""
        batches = [EncodeBatch(task, samples) for task in tasks for samples in self._cut(task.samples)]
        with ExitStack() as stages:

            def stage(function: Callable, items: Any, threads: int = 1) -> Iterator[Any]:
                return stages.enter_context(
                    closing(prefetch(function, items, threads=threads, depth=threads))
                )

            loaded = stage(self._load, batches, self.threads)
            finished = stage(self._bring_back, stage(self._encode, loaded))
            metadata = stage(self.reader.metadata, [task.number for task in tasks])
            by_task = groupby(finished, key=lambda batch: batch.task)
            for (task, encoded), about in zip(by_task, metadata, strict=True):
                yield self._write_shard(task, encoded, about)

    def _write_shard(
        self, task: EncodeTask, encoded: Iterator[EncodeBatch], about: list[dict[str, Any]]
    ) -> Part:
        measured: list[ChannelSums] = []
        samples = self._samples(encoded, iter(about), measured)
        part = write_part(self.build.root, self.build.contents, task.number, samples, handled=len(task))
        part.measured = to_json(merged(measured))
        return part

    def _samples(
        self,
        encoded: Iterator[EncodeBatch],
        about: Iterator[dict[str, Any]],
        measured: list[ChannelSums],
    ) -> Iterator[Sample]:
        for batch in encoded:
            measured.append(batch.content.measured)
            rows = self.reader.index.table[batch.samples.start : batch.samples.stop]
            names = self.reader.keys(np.array(batch.samples))
            for row, name, *views in zip(rows, names, *batch.content.views, strict=True):
                yield Sample(int(row["key"]), int(row["label"]), npy_bytes(views), next(about), name)

    def _cut(self, samples: range) -> list[range]:
        return [samples[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size)]

    def _load(self, batch: EncodeBatch) -> EncodeBatch:
        pixels = self.reader.stored(np.array(batch.samples))
        return batch._replace(content=pixels.pin_memory() if self.device.type == "cuda" else pixels)

    @torch.inference_mode()
    def _encode(self, batch: EncodeBatch) -> EncodeBatch:
        """Launch the encoder; on a GPU it may still be running when this returns."""
        images = self.reader.as_signals(batch.content.to(self.device, non_blocking=True)).mean
        views = [images, images.flip(-1)][: self.build.contents.views]
        return batch._replace(content=[self._latents(view) for view in views])

    @torch.inference_mode()
    def _bring_back(self, batch: EncodeBatch) -> EncodeBatch:
        dtype, keys = self.build.contents.dtype, self.reader.keys(np.array(batch.samples))
        views = [view.map(Tensor.cpu) for view in batch.content]
        for view in views:
            check_range(view, dtype, keys)
        measured = merged(measure(view, dtype) for view in views)
        return batch._replace(content=Packed([packed(view, dtype) for view in views], measured))

    def _latents(self, images: Images) -> Latents:
        if not self.is_compiled:
            return self.codec.encode(images)
        latents = self._compiled(padded(images, self.batch_size))
        return latents.map(lambda half: half[: len(images)])

    @cached_property
    def _compiled(self) -> Callable[[Images], Latents]:
        return torch.compile(self.codec.encode, dynamic=False)


def encode(config: EncodeConfig, progress: OnProgress | None = None, codec: Codec | None = None) -> Encoded:
    """Make the missing latent shards of this process's share, and the index if all shards are finished.

    `codec` is used instead of the one that `config.codec` describes. UserError if the source holds no images, or the
    output another set.
    """
    _check(config)
    reader = _image_reader(config)
    device = _device(config.device)
    codec = codec or build_codec(config.codec, device)
    build = ShardBuild(Path(config.output), _contents(reader.index, codec, config))
    encoder = ShardEncoder(
        reader, codec, build, device, config.batch_size, config.threads or _cores(), config.compile
    )
    encoded = _complete(config, build, encoder, progress)
    if encoded.index is None or not config.check:
        return encoded
    latents = ShardReader(encoded.index)
    options: dict[str, Any] = {"batch_size": config.batch_size, "device": device, "folder": build.root}
    return replace(encoded, check=check_latents(reader, latents, codec, config.check, **options))


def _complete(
    config: EncodeConfig, build: ShardBuild, encoder: ShardEncoder, progress: OnProgress | None
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
