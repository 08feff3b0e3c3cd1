"""Image shards -> latent shards, sample for sample in the same order under the same keys.

A latent is stored as one `.npy`: for a stochastic codec the mean's channels followed by the log-variance's.
The index keeps each channel's mean and standard deviation. Batches start anew with each shard, so an
interrupted run ends with the same bytes.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped

from lediflow.codecs import Codec, CodecConfig, Latents, build_codec, signal_to_bytes
from lediflow.data.moments import Moments, channel_statistics, merged
from lediflow.data.shards.build import Part, Progress, ShardBuild, write_part
from lediflow.data.shards.index import Contents, ShardIndex
from lediflow.data.shards.reader import ShardReader
from lediflow.data.shards.writer import Sample
from lediflow.errors import UserError


@dataclass(kw_only=True)
class EncodeConfig:
    """Which image shards become latents of which codec."""

    source: str  # folder of finished image shards
    output: str  # folder for the latent shards; a finished one is reused, an interrupted one continued
    codec: CodecConfig = field(default_factory=CodecConfig)
    batch_size: int = 32  # images encoded at once: more is faster until memory ends
    device: str = "auto"  # "auto" takes a GPU where there is one


@dataclass(frozen=True)
class Encoded:
    """The latents, and whether they were there before."""

    index: ShardIndex
    is_reused: bool


@dataclass(frozen=True)
class EncodeTask:
    """One shard to encode: these samples of the source."""

    number: int
    samples: range

    def __len__(self) -> int:
        return len(self.samples)


def encode(config: EncodeConfig, progress: Progress | None = None) -> Encoded:
    """Make the latent shards, or what is missing of them."""
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size} must be at least 1")
    reader = _image_reader(config)
    device = _device(config.device)
    codec = build_codec(config.codec, device)
    build = ShardBuild(Path(config.output), _contents(reader.index, codec, config))
    if index := build.finished():
        return Encoded(index, is_reused=True)
    encoder = ShardEncoder(reader, codec, build, config.batch_size, device)
    parts = build.complete(_tasks(reader.index), lambda missing: map(encoder.make_part, missing), progress)
    moments = merged(Moments.from_json(part.moments) for part in parts if part.moments)
    return Encoded(build.finish(parts, channel_statistics(moments)), is_reused=False)


@dataclass(frozen=True)
class ShardEncoder:
    """Encodes one shard after the other."""

    reader: ShardReader
    codec: Codec
    build: ShardBuild
    batch_size: int
    device: torch.device

    def make_part(self, task: EncodeTask) -> Part:
        """Encode one shard."""
        stored: list[Shaped[np.ndarray, "channels height width"]] = []
        moments: list[Moments] = []
        for batch in self._batches(task.samples):
            latents = self._encoded(batch)
            moments.append(Moments.of(latents))
            stored += [*packed(latents, self.codec.stored_dtype)]
        samples = self._samples(task, stored)
        part = write_part(self.build.root, self.build.contents, task.number, samples, handled=len(task))
        part.moments = merged(moments).to_json()
        return part

    def _batches(self, samples: range) -> Iterator[range]:
        return (samples[start : start + self.batch_size] for start in range(0, len(samples), self.batch_size))

    @torch.inference_mode()
    def _encoded(self, batch: range) -> Latents:
        return self.codec.encode(self.reader.signals(np.array(batch)).mean.to(self.device))

    def _samples(
        self, task: EncodeTask, stored: list[Shaped[np.ndarray, "channels height width"]]
    ) -> list[Sample]:
        rows = self.reader.index.table[task.samples.start : task.samples.stop]
        metadata = self.reader.metadata(task.number)
        return [
            Sample(int(row["key"]), int(row["label"]), npy_bytes(array), about)
            for row, array, about in zip(rows, stored, metadata, strict=True)
        ]


def npy_bytes(array: Shaped[np.ndarray, "*shape"]) -> bytes:
    """The array as the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def packed(latents: Latents, stored_dtype: str) -> Shaped[np.ndarray, "batch channels height width"]:
    """Latents as they are stored; `ShardReader.signals` is the way back."""
    if stored_dtype == "uint8":
        return signal_to_bytes(latents.mean).cpu().numpy()
    halves = [half for half in latents if half is not None]
    return torch.cat(halves, dim=1).to(getattr(torch, stored_dtype)).cpu().numpy()


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


def _contents(source: ShardIndex, codec: Codec, config: EncodeConfig) -> Contents:
    images = source.contents
    channels, height, width = codec.latent_shape(images.image_size, images.shape[0])
    record: dict[str, Any] = codec.record() | {"has_logvar": codec.is_stochastic}
    return Contents(
        kind="latents",
        payload="npy",
        shape=[2 * channels if codec.is_stochastic else channels, height, width],
        dtype=codec.stored_dtype,
        image_size=images.image_size,
        mode=images.mode,
        classes=images.classes,
        codec=record,
        made_from={"images": source.fingerprint, "codec": record, "batch_size": config.batch_size},
    )


def _tasks(source: ShardIndex) -> list[EncodeTask]:
    ends = np.cumsum(source.shard_sizes).tolist()
    starts = [0, *ends[:-1]]
    return [EncodeTask(n, range(a, b)) for n, (a, b) in enumerate(zip(starts, ends, strict=True))]
