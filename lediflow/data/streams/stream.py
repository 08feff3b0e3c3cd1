"""Batches of training samples for one rank; the samples of a run do not depend on the number of ranks.

The whole state of a stream is one position: the number of images of the run that finished steps have used. Each rank
computes the order independently (order.py), so ranks do not communicate, none waits for a batch of another, and a run
may continue on another number of ranks. With gradient accumulation, a rank's part of a step is delivered in
micro-batches. Threads prefetch; the samples that they load are determined before they start.

LatentStream encodes every image once, not once per epoch, for the latent sampler. An image's posterior q(z|y) does not
change while the sampler trains, because the encoder is frozen. It is kept in host memory for each training sample and
each combination of flips. A batch is a draw from the posteriors of its samples: the same draw as if its images were
encoded again, up to rounding at another batch size. Order, ids and state are those of SampleStream, so a run may switch
between the two whenever it resumes.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count, product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.codecs import Latents
from lediflow.data.augmentation import augmented
from lediflow.data.latents import padded
from lediflow.data.shards.reader import ShardReader
from lediflow.data.storage.retry import LONGEST_PAUSE_SECONDS
from lediflow.data.streams.batch import (
    DIMENSIONS,
    Batch,
    Quarantine,
    StoredBatch,
    Uploads,
    flip,
    is_flipped,
    load_samples,
    ready,
)
from lediflow.data.streams.config import (
    DataConfig,
    check_augmentation,
    check_batches,
    check_data,
    check_flips,
    check_order,
    conditioning_augmentation,
    training_samples,
)
from lediflow.data.streams.decoded import decoded_pictures
from lediflow.data.streams.order import RunOrder, share_of_rank
from lediflow.errors import UserError
from lediflow.flow.gaussians import sample
from lediflow.flow.noise import SampleNoise
from lediflow.ranges import check_ranges

Positions = Int64[np.ndarray, " batch"]
BATCHES_AHEAD = 4
ORDER_RULE = 2  # increased by every change of order.py that puts other samples at the same positions
log = logging.getLogger(__name__)
Images = Float[Tensor, "batch channels height width"]
Encode = Callable[[Images], Latents]
Flips = tuple[bool, bool]  # horizontally, vertically
POSTERIOR = "posterior"  # name of the noise stream that z ~ q(z|y) is drawn from, in every stage
MOST_BYTES = 4 * 2**30  # host memory of a rank for posteriors


class SampleStream:
    """Micro-batches of one rank, beginning at a position of the run.

    `batches_ahead` micro-batches are loaded in advance; it changes memory and waiting, not the batches.
    """

    def __init__(
        self,
        reader: ShardReader,
        config: DataConfig,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int,
        global_batch: int,
        position: int = 0,
        device: torch.device | str = "cpu",
        batches_ahead: int = BATCHES_AHEAD,
    ):
        check_ranges(config, "data.")
        check_batches(global_batch, world_size, micro_batch)
        check_flips(reader, config)
        check_augmentation(reader, config)
        self.reader, self.config, self.device = reader, config, torch.device(device)
        self.augment = conditioning_augmentation(config)
        self.has_mirrored = reader.index.contents.views == 2
        self.rank, self.world_size = rank, world_size
        self.micro_batch, self.global_batch, self.batches_ahead = micro_batch, global_batch, batches_ahead
        self.accumulation = global_batch // (world_size * micro_batch)
        self.noise = SampleNoise(seed)
        self.samples = training_samples(reader, config)
        self.decoded = decoded_pictures(reader, config.decoded_gib)
        self._upload = Uploads(self.device) if self.device.type == "cuda" else lambda batch: batch
        self.quarantine = Quarantine(reader, self.samples, config.max_corrupt_share)
        ends = np.searchsorted(self.samples, reader.index.shard_ends)
        self.order = RunOrder(
            np.diff(ends, prepend=0), seed=seed, window=config.shuffle_window,
            last_batch=config.last_batch, global_batch=global_batch,
        )  # fmt: skip
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="loader")
        self._start_at(position)

    def next_batch(self) -> Batch:
        """The next micro-batch of this rank, on the device. The stream is endless."""
        batch = ready(self.next_stored(), self.reader, self.noise, self.device)
        if not self.augment.probability:
            return batch
        images, numbers = augmented(batch.images, batch.ids, self.noise, self.augment)
        return replace(batch, images=images, augmentation=numbers)

    def next_stored(self) -> StoredBatch:
        """The next micro-batch as it is stored, before the work that is done on the device."""
        while len(self._ahead) <= self.batches_ahead:
            self._ahead.append(self._pool.submit(self._load, next(self._places)))
        batch = self._waited_for(self._ahead.popleft())
        self._delivered += 1
        return batch

    @property
    def position(self) -> int:
        """Images of the run that finished steps have used, over all ranks."""
        return self._first + self._delivered // self.accumulation * self.global_batch

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint; an unfinished step is repeated after loading."""
        return {
            "position": self.position,
            "data": self.reader.index.fingerprint,
            "order": self._order_facts(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the state of a stream over the same data, on any number of ranks."""
        check_data(state["data"], self.reader.index)
        check_order(state.get("order", {}), self._order_facts())
        self._start_at(state["position"])

    def close(self) -> None:
        """Stop the loading threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _order_facts(self) -> dict[str, Any]:
        """What determines the order besides the data. The number of ranks and the options of loading do not."""
        return {
            "rule": ORDER_RULE,
            "seed": self.noise.seed,
            "data.shuffle_window": self.config.shuffle_window,
            "data.held_out_fraction": self.config.held_out_fraction,
            "samples_per_epoch": self.order.samples_per_epoch,
        }

    def _start_at(self, position: int) -> None:
        self._first, self._delivered = position, 0
        self._ahead: deque[Future[StoredBatch]] = deque()
        self._places = self._positions_from(position)
        self._expected: list[int] = []

    def _positions_from(self, position: int) -> Iterator[Positions]:
        for block_start in count(position, self.global_batch):
            self._expect(block_start)
            share = share_of_rank(
                block_start, global_batch=self.global_batch, rank=self.rank, world_size=self.world_size
            )
            yield from np.split(share, self.accumulation)

    def _expect(self, position: int) -> None:
        wanted = self.order.shards_wanted(position)
        if wanted != self._expected:
            self._expected = wanted
            self.reader.expect(wanted)

    def _load(self, positions: Positions) -> StoredBatch:
        samples = self.samples[self.order.samples_at(positions)]
        views = None
        if self.config.flip_horizontal and self.has_mirrored:
            mirrored = is_flipped(torch.from_numpy(positions), self.noise, axis="horizontal")
            views = mirrored.numpy().astype(np.int64)
        batch = self.quarantine.loaded(
            samples, lambda chosen: load_samples(self.reader, chosen, positions, views, self.decoded)
        )
        # flipped as stored: converting to numbers treats every pixel alike
        if self.config.flip_horizontal and not self.has_mirrored:
            flip(batch.stored, batch.ids, self.noise, axis="horizontal")
        if self.config.flip_vertical:
            flip(batch.stored, batch.ids, self.noise, axis="vertical")
        return self._upload(batch)

    def _waited_for(self, batch: Future[StoredBatch]) -> StoredBatch:
        reading = self.config.reading
        patience = reading.attempts * (reading.timeout_seconds + LONGEST_PAUSE_SECONDS)
        try:
            return batch.result(patience)
        except TimeoutError:
            raise UserError(
                f"no batch came from {self.reader.index.root} within {patience:.0f} s; check that the storage answers, "
                "then repeat the command (the run continues from its last checkpoint), or raise "
                "data.reading.timeout_seconds"
            ) from None


def flips_of(config: DataConfig) -> list[Flips]:
    """The combinations of flips in which an image occurs."""
    axes = [[False, True] if wanted else [False] for wanted in (config.flip_horizontal, config.flip_vertical)]
    return [(horizontal, vertical) for horizontal, vertical in product(*axes)]


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
        self.decoded = None  # the posteriors are kept instead
        self.flips = flips_of(config)
        self.posteriors = self._encoded(encode)

    def next_batch(self) -> Batch:
        stored = self.next_stored()
        stored.await_copies()
        ids, posterior = (part.to(self.device, non_blocking=True) for part in (stored.ids, stored.stored))
        labels = None if stored.labels is None else stored.labels.to(self.device, non_blocking=True)
        mean, logvar = posterior.chunk(2, dim=1)
        z = sample(mean, logvar, self.noise.normal(ids, POSTERIOR, tuple(mean.shape[1:])))
        return Batch(ids=ids, keys=stored.keys, images=z, labels=labels, is_encoded=True)

    def _load(self, positions: Positions) -> StoredBatch:
        places = self.order.samples_at(positions)
        ids = torch.from_numpy(positions)
        usable = self.quarantine.loaded(self.samples[places], lambda chosen: chosen)
        batch = StoredBatch(
            ids=ids,
            keys=self.reader.keys(usable),
            # indexing keeps the encoder's memory layout, which `index_select` does not: sums over a batch add in the
            # same order as where images are encoded each time
            stored=self.posteriors[self._flip_index(ids), torch.from_numpy(places)],
            labels=self.reader.labels(usable),
        )
        return self._upload(batch)

    def _flip_index(self, ids: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        """Index in `flips` of each position of the run: the horizontal flip is the higher bit."""
        index = torch.zeros_like(ids)
        for wanted, axis in (
            (self.config.flip_horizontal, "horizontal"),
            (self.config.flip_vertical, "vertical"),
        ):
            if wanted:
                index = 2 * index + is_flipped(ids, self.noise, axis=axis).long()
        return index

    @torch.no_grad()
    def _encoded(self, encode: Encode) -> Float[Tensor, "flips samples twice_channels h w"]:
        """Posterior mean and log variance of every training sample, for each combination of flips."""
        started = time.perf_counter()
        count, size = len(self.samples), self.micro_batch
        chunks = [self.samples[first : first + size] for first in range(0, count, size)]
        found = [
            torch.cat([self._posteriors(chunk, flips, encode) for chunk in chunks]) for flips in self.flips
        ]
        per_flip = f" x {len(self.flips)} flips" if len(self.flips) > 1 else ""
        seconds = time.perf_counter() - started
        log.info("encoded %d images%s once, for the whole training, in %.0f s", count, per_flip, seconds)
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
        posterior = encode(padded(images, self.micro_batch))
        assert posterior.logvar is not None
        return torch.cat((posterior.mean, posterior.logvar), dim=1)[: len(samples)].float().cpu()
