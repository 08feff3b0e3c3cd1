"""The order of a run: a pure function (seed, position) -> sample, whatever the number of ranks and threads.

Position k counts the images of the whole run. With n samples it lies in epoch k // n, and each epoch holds
every sample once: shards are permuted, and samples are permuted inside windows of a few consecutive shards,
so that reading touches few files at a time. Step s of the run is the block of positions [s B, (s + 1) B);
rank r of R takes every R-th of the block, starting at r.

Permutations sort by raw Philox bits: NumPy promises those for ever, its shuffles it does not.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int64


def epoch_order(
    shard_sizes: Sequence[int] | Int64[np.ndarray, " shards"], *, seed: int, epoch: int, window: int
) -> Int64[np.ndarray, " samples"]:
    """Sample numbers in the order of one epoch; window 0 takes all shards as one window."""
    bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    place = np.empty(len(shard_sizes), dtype=np.int64)
    place[np.argsort(bits.random_raw(len(shard_sizes)), kind="stable")] = np.arange(len(shard_sizes))
    window_of_sample = np.repeat(place // (window or len(shard_sizes)), shard_sizes)
    return np.lexsort((bits.random_raw(len(window_of_sample)), window_of_sample))


class RunOrder:
    """The samples of a run, epoch after epoch."""

    def __init__(self, shard_sizes: Sequence[int] | Int64[np.ndarray, " shards"], *, seed: int, window: int):
        self.samples_per_epoch = int(np.sum(shard_sizes))
        self._epoch = lru_cache(maxsize=2)(
            lambda epoch: epoch_order(shard_sizes, seed=seed, epoch=epoch, window=window)
        )

    def samples_at(self, positions: Int64[np.ndarray, " batch"]) -> Int64[np.ndarray, " batch"]:
        """Which sample each position shows."""
        epochs, places = np.divmod(positions, self.samples_per_epoch)
        samples = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            samples[here] = self._epoch(int(epoch))[places[here]]
        return samples


def share_of_rank(
    block_start: int, *, global_batch: int, rank: int, world_size: int
) -> Int64[np.ndarray, " share"]:
    """The positions of one global batch that fall to a rank."""
    return np.arange(block_start + rank, block_start + global_batch, world_size)
