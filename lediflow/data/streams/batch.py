"""Samples side by side, ready for a model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.data.shards.reader import ShardReader
from lediflow.flow.noise import SampleNoise


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples with their places in the run."""

    ids: Int64[Tensor, " batch"]  # position in the run: what randomness is keyed by
    keys: list[str]
    images: Float[Tensor, "batch channels height width"]  # in [-1, 1], or latents
    labels: Int64[Tensor, " batch"] | None

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on a device; keys stay what they are."""
        return replace(
            self,
            ids=self.ids.to(device, non_blocking=True),
            images=self.images.to(device, non_blocking=True),
            labels=None if self.labels is None else self.labels.to(device, non_blocking=True),
        )


def load_samples(
    reader: ShardReader,
    samples: Int64[np.ndarray, " batch"],
    ids: Int64[Tensor, " batch"],
    noise: SampleNoise,
) -> Batch:
    """Samples by number; stochastic latents are drawn with noise keyed by `ids`."""
    signals = reader.signals(samples)
    drawn = signals.mean
    if signals.logvar is not None:
        drawn = signals.draw(noise.normal(ids, "codec", tuple(drawn.shape[1:])))
    return Batch(ids=ids, keys=reader.keys(samples), images=drawn, labels=reader.labels(samples))


def each_once(
    reader: ShardReader, samples: Int64[np.ndarray, " samples"], batch_size: int, *, seed: int = 0
) -> Iterator[Batch]:
    """The given samples in the given order, for evaluation; ids are the samples' own numbers."""
    noise = SampleNoise(seed)
    for start in range(0, len(samples), batch_size):
        chosen = samples[start : start + batch_size]
        yield load_samples(reader, chosen, torch.from_numpy(chosen), noise)
