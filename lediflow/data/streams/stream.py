"""Batches of training samples for one rank; the samples of a run do not depend on the number of ranks.

The whole state of a stream is one position: the number of images of the run that finished steps have used. Each rank
computes the order independently (order.py), so ranks do not communicate, none waits for a batch of another, and a run
may continue on another number of ranks. With gradient accumulation, a rank's part of a step is delivered in
micro-batches. Threads prefetch; the samples that they load are determined before they start.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from lediflow.data.augmentation import augmented
from lediflow.data.shards.reader import ShardReader
from lediflow.data.storage.retry import LONGEST_PAUSE_SECONDS
from lediflow.data.streams.batch import Batch, StoredBatch, flipped, is_flipped, load_samples, ready
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
from lediflow.data.streams.order import RunOrder, share_of_rank
from lediflow.data.streams.quarantine import Quarantine
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.ranges import check_ranges

Positions = Int64[np.ndarray, " batch"]
ORDER_RULE = 2  # increased by every change of order.py that puts other samples at the same positions


class SampleStream:
    """Micro-batches of one rank, beginning at a position of the run."""

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
    ):
        check_ranges(config, "data.")
        check_batches(global_batch, world_size, micro_batch)
        check_flips(reader, config)
        check_augmentation(reader, config)
        self.reader, self.config, self.device = reader, config, torch.device(device)
        self.augment = conditioning_augmentation(config)
        self.has_mirrored = reader.index.contents.views == 2
        self.rank, self.world_size = rank, world_size
        self.micro_batch, self.global_batch = micro_batch, global_batch
        self.accumulation = global_batch // (world_size * micro_batch)
        self.noise = SampleNoise(seed)
        self.samples = training_samples(reader, config)
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
        images = batch.images
        if self.config.flip_horizontal and not self.has_mirrored:
            images = flipped(images, batch.ids, self.noise, axis="horizontal")
        if self.config.flip_vertical:
            images = flipped(images, batch.ids, self.noise, axis="vertical")
        if not self.augment.probability:
            return replace(batch, images=images)
        images, numbers = augmented(images, batch.ids, self.noise, self.augment)
        return replace(batch, images=images, augmentation=numbers)

    def next_stored(self) -> StoredBatch:
        """The next micro-batch as it is stored, before the work that is done on the device."""
        while len(self._ahead) <= self.config.batches_ahead:
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
        """Everything but the data that determines the order; ranks and loading do not."""
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
            samples, lambda chosen: load_samples(self.reader, chosen, positions, views)
        )
        return batch.pinned() if self.device.type == "cuda" else batch

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
