"""Samples as a batch: as they are stored, and ready for a model.

Loading threads deliver stored arrays (bytes or half precision, two to eight times smaller than float32). They are
converted on the model's device, where latents are drawn and images flipped as well. Draws and flips are keyed by a
sample's position in the run, so they are the same on any device and any number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, where

from lediflow.data.shards.reader import ShardReader
from lediflow.flow.noise import SampleNoise

Images = Float[Tensor, "batch channels height width"]
DIMENSIONS = {"horizontal": -1, "vertical": -2}


@dataclass(frozen=True, kw_only=True)
class StoredBatch:
    """Samples with their positions in the run, as they are stored in the shards."""

    ids: Int64[Tensor, " batch"]  # positions in the run, which key all random draws
    keys: list[str]
    stored: Shaped[Tensor, "batch stored_channels height width"]
    labels: Int64[Tensor, " batch"] | None

    def __len__(self) -> int:
        return len(self.keys)

    def pinned(self) -> "StoredBatch":
        """A copy in page-locked memory, which a GPU can read asynchronously."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return replace(self, ids=self.ids.pin_memory(), stored=self.stored.pin_memory(), labels=labels)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples with their positions in the run, as a model sees them."""

    ids: Int64[Tensor, " batch"]
    keys: list[str]
    images: Float[Tensor, "batch channels height width"]  # in [-1, 1], or latents
    labels: Int64[Tensor, " batch"] | None
    is_encoded: bool = False  # `images` are draws of z from the frozen encoder
    augmentation: Float[Tensor, "batch 9"] | None = (
        None  # parameters of the augmentation; None: not augmented
    )

    def __len__(self) -> int:
        return len(self.keys)


def load_samples(
    reader: ShardReader,
    samples: Int64[np.ndarray, " batch"],
    ids: Int64[np.ndarray, " batch"],
    views: Int64[np.ndarray, " batch"] | None = None,
) -> StoredBatch:
    """Load samples by index, for the positions `ids` of the run."""
    return StoredBatch(
        ids=torch.from_numpy(ids),
        keys=reader.keys(samples),
        stored=reader.stored(samples, views),
        labels=reader.labels(samples),
    )


def ready(batch: StoredBatch, reader: ShardReader, noise: SampleNoise, device: torch.device | str) -> Batch:
    """Move a batch to a device, and draw from each stored posterior."""
    ids, stored = (tensor.to(device, non_blocking=True) for tensor in (batch.ids, batch.stored))
    labels = None if batch.labels is None else batch.labels.to(device, non_blocking=True)
    signals = reader.as_signals(stored)
    images = signals.mean
    if signals.logvar is not None:
        images = signals.draw(noise.normal(ids, "codec", tuple(images.shape[1:])))
    return Batch(ids=ids, keys=batch.keys, images=images, labels=labels)


def each_once(
    reader: ShardReader, samples: Int64[np.ndarray, " samples"], batch_size: int, *, seed: int = 0
) -> Iterator[Batch]:
    """Batches of the given samples in the given order, for evaluation; ids are the samples' indices."""
    noise = SampleNoise(seed)
    for start in range(0, len(samples), batch_size):
        chosen = samples[start : start + batch_size]
        yield ready(load_samples(reader, chosen, chosen), reader, noise, "cpu")


def is_flipped(ids: Int64[Tensor, " batch"], noise: SampleNoise, *, axis: str) -> Bool[Tensor, " batch"]:
    """Whether the image at each position of the run is flipped: true for half of them, whichever rank loads it."""
    return noise.uniform(ids, f"flip_{axis}") < 0.5


def flipped(images: Images, ids: Int64[Tensor, " batch"], noise: SampleNoise, *, axis: str) -> Images:
    """Flip the images chosen by `is_flipped` along "horizontal" or "vertical"."""
    chosen = is_flipped(ids, noise, axis=axis)
    return where(chosen[:, None, None, None], images.flip(DIMENSIONS[axis]), images)
