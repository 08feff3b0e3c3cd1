"""Shards of images through a codec, arranged so that the device seldom waits.

    threads read and decode images -> one thread feeds the device -> one copies latents back and packs them
    -> the caller's thread writes

Each stage prefetches from the one before it, also across the ends of shards. Every shard starts a new batch, and all
stages keep their order, so the bytes of a shard depend on its images alone.

A sample is stored as one `.npy`: the channels of the mean, followed by those of the log variance for a stochastic
codec. If the mirrored image was encoded too, a first axis holds [as it is, mirrored]. `ShardReader.as_signals` reads
it back.
"""

import io
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lediflow.codecs import Codec, Latents, signal_to_bytes
from lediflow.data.latents.statistics import Measured, measure, merged, to_json
from lediflow.data.shards.build import Part, ShardBuild, write_part
from lediflow.data.shards.reader import ShardReader
from lediflow.data.shards.writer import Sample
from lediflow.errors import UserError

DTYPES = ("float16", "float32")  # dtypes in which latents of an autoencoder may be stored

Stored = Shaped[np.ndarray, "batch channels height width"]
Item = TypeVar("Item")
Result = TypeVar("Result")
Images = Float[Tensor, "batch channels height width"]


def packed(latents: Latents, stored_dtype: str) -> Stored:
    """A batch of latents as one array in the stored dtype."""
    if stored_dtype == "uint8":
        return signal_to_bytes(latents.mean).numpy()
    halves = [half for half in latents if half is not None]
    return torch.cat(halves, dim=1).to(getattr(torch, stored_dtype)).numpy()


def check_range(latents: Latents, stored_dtype: str, keys: Sequence[str]) -> None:
    """UserError for latents that are not finite, or would not be finite in the stored dtype."""
    halves = [half.flatten(1) for half in latents if half is not None]
    largest = torch.cat(halves, dim=1).abs().amax(1)
    for key, value in zip(keys, largest.tolist(), strict=True):
        if not np.isfinite(value):
            raise UserError(
                f"sample {key}: its latents are not finite numbers; "
                "encode with codec.precision=float32, and look at the weights if that changes nothing"
            )
        if stored_dtype == "float16" and value > torch.finfo(torch.float16).max:
            raise UserError(
                f"sample {key}: its latents reach {value:,.0f}, more than float16 can hold (65,504); "
                "store them with dtype=float32"
            )


def npy_bytes(views: Sequence[Shaped[np.ndarray, "channels height width"]]) -> bytes:
    """The content of a .npy file with one view, or with several stacked along a first axis."""
    buffer = io.BytesIO()
    np.save(buffer, views[0] if len(views) == 1 else np.stack(views))
    return buffer.getvalue()


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 1, depth: int = 1
) -> Generator[Result, None, None]:
    """Apply a function in threads and yield results in the order of the items.

    At most `depth` results are computed before they are requested. Close the generator to stop early: calls that are
    running finish, and no further call starts.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class EncodeTask:
    """One shard to encode: its number, and its samples in the source."""

    number: int
    samples: range

    def __len__(self) -> int:
        return len(self.samples)


class Batch(NamedTuple):
    """Samples of one shard on their way through the stages."""

    task: EncodeTask
    samples: range
    content: Any = None  # stored pixels, then Latents per view on the device, then Packed


class Packed(NamedTuple):
    """Encoded samples, ready to be written to a tar."""

    views: list[Stored]
    measured: Measured


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
        batches = [Batch(task, samples) for task in tasks for samples in self._cut(task.samples)]
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
        """Launch the encoder; on a GPU it may still be running when this returns."""
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
    """Pad a batch to `count` images by repeating the last one, so that compiled code sees one shape."""
    missing = count - len(images)
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images
