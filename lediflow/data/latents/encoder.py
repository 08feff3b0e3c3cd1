"""Shards of images through a codec, so that the device seldom waits.

    threads read and decode images -> one thread feeds the device -> one brings latents back and packs them
    -> the caller's thread writes

Every stage is a little ahead of the next, across the ends of shards too. Batches start anew with each shard, and
all stages keep their order: the bytes of a shard depend on nothing but its images.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.codecs import Codec, Latents
from lediflow.data.latents.ahead import ahead
from lediflow.data.latents.packing import Stored, check_range, npy_bytes, packed
from lediflow.data.latents.statistics import Measured, measure, merged, to_json
from lediflow.data.shards.build import Part, ShardBuild, write_part
from lediflow.data.shards.reader import ShardReader
from lediflow.data.shards.writer import Sample

Images = Float[Tensor, "batch channels height width"]


@dataclass(frozen=True)
class EncodeTask:
    """One shard to encode: these samples of the source."""

    number: int
    samples: range

    def __len__(self) -> int:
        return len(self.samples)


class Batch(NamedTuple):
    """Some samples of one shard, and what has become of them so far."""

    task: EncodeTask
    samples: range
    content: Any = None  # pixels as stored; then Latents per view, on the device; then Packed


class Packed(NamedTuple):
    """Encoded samples on their way into a tar."""

    views: list[Stored]
    measured: Measured


@dataclass(frozen=True)
class ShardEncoder:
    """Encodes shard after shard."""

    reader: ShardReader
    codec: Codec
    build: ShardBuild
    device: torch.device
    batch_size: int
    threads: int  # that decode
    is_compiled: bool

    def parts(self, tasks: Sequence[EncodeTask]) -> Iterator[Part]:
        """Make these shards, one after the other."""
        batches = [Batch(task, samples) for task in tasks for samples in self._cut(task.samples)]
        with ExitStack() as stages:

            def stage(function: Callable, items: Any, threads: int = 1) -> Iterator[Any]:
                return stages.enter_context(closing(ahead(function, items, threads=threads, depth=threads)))

            loaded = stage(self._load, batches, self.threads)
            finished = stage(self._bring_back, stage(self._encode, loaded))
            metadata = stage(self.reader.metadata, [task.number for task in tasks])
            by_task = groupby(finished, key=lambda batch: batch.task)
            for (task, encoded), about in zip(by_task, metadata, strict=True):
                yield self._written(task, encoded, about)

    def _written(self, task: EncodeTask, encoded: Iterator[Batch], about: list[dict[str, Any]]) -> Part:
        measured: list[Measured] = []
        samples = self._samples(encoded, iter(about), measured)
        part = write_part(self.build.root, self.build.contents, task.number, samples, handled=len(task))
        part.measured = to_json(merged(measured))
        return part

    def _samples(
        self, encoded: Iterator[Batch], about: Iterator[dict[str, Any]], measured: list[Measured]
    ) -> Iterator[Sample]:
        for batch in encoded:
            measured.append(batch.content.measured)
            rows = self.reader.index.table[batch.samples.start : batch.samples.stop]
            names = self.reader.keys(np.array(batch.samples))
            for row, name, *views in zip(rows, names, *batch.content.views, strict=True):
                yield Sample(int(row["key"]), int(row["label"]), npy_bytes(views), next(about), name)

    def _cut(self, samples: range) -> list[range]:
        return [samples[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size)]

    def _load(self, batch: Batch) -> Batch:
        pixels = self.reader.stored(np.array(batch.samples))
        return batch._replace(content=pixels.pin_memory() if self.device.type == "cuda" else pixels)

    @torch.inference_mode()
    def _encode(self, batch: Batch) -> Batch:
        """Launch the work; a GPU may still be at it when this returns."""
        images = self.reader.as_signals(batch.content.to(self.device, non_blocking=True)).mean
        views = [images, images.flip(-1)][: self.build.contents.views]
        return batch._replace(content=[self._latents(view) for view in views])

    @torch.inference_mode()
    def _bring_back(self, batch: Batch) -> Batch:
        dtype, keys = self.build.contents.dtype, self.reader.keys(np.array(batch.samples))
        views = [view.map(Tensor.cpu) for view in batch.content]
        for view in views:
            check_range(view, dtype, keys)
        measured = merged(measure(view, dtype) for view in views)
        return batch._replace(content=Packed([packed(view, dtype) for view in views], measured))

    def _latents(self, images: Images) -> Latents:
        if not self.is_compiled:
            return self.codec.encode(images)
        latents = self._compiled(filled(images, self.batch_size))
        return latents.map(lambda half: half[: len(images)])

    @cached_property
    def _compiled(self) -> Callable[[Images], Latents]:
        return torch.compile(self.codec.encode, dynamic=False)


def filled(images: Images, count: int) -> Images:
    """So many images, the last one repeated: compiled code keeps to one shape."""
    missing = count - len(images)
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images
