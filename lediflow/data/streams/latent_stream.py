"""Batches of latents for the latent sampler: every image is encoded once, not once per epoch.

An image's posterior q(z|y) does not change while the sampler trains, because the encoder is frozen. It is kept in host
memory for each training sample and each combination of flips. A batch is a draw from the posteriors of its samples: the
same draw as if its images were encoded again, up to rounding at another batch size. Order, ids and state are those of
SampleStream, so a run may switch between the two whenever it resumes.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.codecs import Latents
from lediflow.data.latents.encoder import filled
from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import DIMENSIONS, Batch, StoredBatch, is_flipped
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.stream import Positions, SampleStream
from lediflow.flow.gaussians import sample

log = logging.getLogger(__name__)

Images = Float[Tensor, "batch channels height width"]
Encode = Callable[[Images], Latents]
Flips = tuple[bool, bool]  # horizontally, vertically
POSTERIOR = "posterior"  # name of the noise stream that z ~ q(z|y) is drawn from, in every stage
MOST_BYTES = 4 * 2**30  # host memory of a rank for posteriors


def flips_of(config: DataConfig) -> list[Flips]:
    """The combinations of flips in which an image occurs."""
    ways = [[False, True] if wanted else [False] for wanted in (config.flip_horizontal, config.flip_vertical)]
    return [(horizontal, vertical) for horizontal, vertical in itertools.product(*ways)]


def is_worthwhile(
    config: DataConfig, samples: int, latent_shape: tuple[int, ...], *, images: int, world_size: int
) -> bool:
    """Whether to encode every sample once.

    True if that is at most half the work of encoding each of the `images` of a training, and the posteriors fit in
    MOST_BYTES on each rank.
    """
    encoded = samples * len(flips_of(config))
    return 2 * encoded <= images / world_size and 8 * encoded * math.prod(latent_shape) <= MOST_BYTES


class LatentStream(SampleStream):
    """Micro-batches of latents for one rank: `Batch.images` are draws of z, and `Batch.is_encoded` is true."""

    def __init__(self, reader: ShardReader, config: DataConfig, *, encode: Encode, **options: Any) -> None:
        """`encode` is always called with `micro_batch` images on the device; `options` are those of SampleStream."""
        super().__init__(reader, config, **options)
        self.flips = flips_of(config)
        self.posteriors = self._encoded(encode)

    def next_batch(self) -> Batch:
        stored = self.next_stored()
        ids, posterior = (part.to(self.device, non_blocking=True) for part in (stored.ids, stored.stored))
        mean, logvar = posterior.chunk(2, dim=1)
        z = sample(mean, logvar, self.noise.normal(ids, POSTERIOR, tuple(mean.shape[1:])))
        return Batch(ids=ids, keys=stored.keys, images=z, labels=None, is_encoded=True)

    def _load(self, positions: Positions) -> StoredBatch:
        places = self.order.samples_at(positions)
        ids = torch.from_numpy(positions)
        shown = self.quarantine.loaded(self.samples[places], lambda chosen: chosen)
        batch = StoredBatch(
            ids=ids,
            keys=self.reader.keys(shown),
            stored=self.posteriors[self._way(ids), torch.from_numpy(places)],
            labels=None,
        )
        return batch.pinned() if self.device.type == "cuda" else batch

    def _way(self, ids: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        """Index in `flips` of each position of the run: the horizontal flip is the higher bit."""
        way = torch.zeros_like(ids)
        for wanted, axis in (
            (self.config.flip_horizontal, "horizontal"),
            (self.config.flip_vertical, "vertical"),
        ):
            if wanted:
                way = 2 * way + is_flipped(ids, self.noise, axis=axis).long()
        return way

    @torch.no_grad()
    def _encoded(self, encode: Encode) -> Float[Tensor, "ways samples twice_channels h w"]:
        """Posterior mean and log variance of every training sample, for each combination of flips."""
        started = time.perf_counter()
        count, size = len(self.samples), self.micro_batch
        chunks = [self.samples[first : first + size] for first in range(0, count, size)]
        found = [
            torch.cat([self._posteriors(chunk, flips, encode) for chunk in chunks]) for flips in self.flips
        ]
        ways = f" x {len(self.flips)} flips" if len(self.flips) > 1 else ""
        seconds = time.perf_counter() - started
        log.info("encoded %d images%s once, for the whole training, in %.0f s", count, ways, seconds)
        return torch.stack(found)

    def _posteriors(
        self, samples: Int64[np.ndarray, " chunk"], flips: Flips, encode: Encode
    ) -> Float[Tensor, "chunk twice_channels h w"]:
        horizontal, vertical = flips
        views = np.full(len(samples), int(horizontal and self.has_mirrored), dtype=np.int64)
        stored = self.quarantine.loaded(samples, lambda chosen: self.reader.stored(chosen, views))
        images = self.reader.as_signals(stored.to(self.device)).mean
        if horizontal and not self.has_mirrored:
            images = images.flip(DIMENSIONS["horizontal"])
        if vertical:
            images = images.flip(DIMENSIONS["vertical"])
        posterior = encode(filled(images, self.micro_batch))
        assert posterior.logvar is not None
        return torch.cat((posterior.mean, posterior.logvar), dim=1)[: len(samples)].float().cpu()
