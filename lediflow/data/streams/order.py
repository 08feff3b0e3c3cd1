"""The order of a run: a pure function (seed, position) -> sample, whatever the number of ranks and threads.

Position k counts the images of the whole run. With n samples an epoch it lies in epoch k // n, and each epoch
holds every sample once: shards are permuted, then samples are permuted inside windows of a few consecutive
shards, so that reading touches few files at a time. A window is worked out when it is first needed, so starting
anywhere costs one window. Step s of the run is the block of positions [s B, (s + 1) B); rank r of R takes every
R-th of the block, starting at r.

Permutations sort by raw Philox bits: NumPy promises those for ever, its shuffles it does not. The key is
(seed, epoch); the counter's top word tells the shards' permutation (0) from those of the windows (1, 2, ...).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from lediflow.errors import UserError

Numbers = Int64[np.ndarray, " count"]
WINDOWS_KEPT = 4


def permutation(count: int, *, seed: int, epoch: int, stream: int) -> Numbers:
    """The numbers 0 ... count - 1 in an order that depends on (seed, epoch, stream) alone."""
    key = np.array([seed, epoch], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64))
    return np.argsort(bits.random_raw(count), kind="stable")


class EpochOrder:
    """One epoch's samples; `window` shards are mixed with each other, 0 mixes all."""

    def __init__(self, shard_sizes: Numbers, *, seed: int, epoch: int, window: int):
        self.seed, self.epoch = seed, epoch
        self.width = window or max(len(shard_sizes), 1)
        self.shards = permutation(len(shard_sizes), seed=seed, epoch=epoch, stream=0)
        self.first = (np.cumsum(shard_sizes) - shard_sizes)[self.shards]  # sample of each shard, in order
        self.sizes = shard_sizes[self.shards]
        # place in the epoch at which each window ends
        self.window_ends = np.add.reduceat(self.sizes, np.arange(0, len(self.sizes), self.width)).cumsum()
        self._samples = lru_cache(maxsize=WINDOWS_KEPT)(self._mixed)

    def samples_at(self, places: Numbers) -> Numbers:
        """Sample numbers at places of the epoch."""
        samples = np.empty_like(places)
        windows = self.window_of(places)
        for window in np.unique(windows).tolist():
            here = windows == window
            begin = self.window_ends[window - 1] if window else 0
            samples[here] = self._samples(window)[places[here] - begin]
        return samples

    def window_of(self, places: Numbers) -> Numbers:
        """Which window each place lies in."""
        return np.searchsorted(self.window_ends, places, side="right")

    def shards_of(self, window: int) -> Numbers:
        """The shards that a window mixes; none behind the last."""
        return self.shards[window * self.width : (window + 1) * self.width]

    def _mixed(self, window: int) -> Numbers:
        here = slice(window * self.width, (window + 1) * self.width)
        members = [np.arange(a, a + n) for a, n in zip(self.first[here], self.sizes[here], strict=True)]
        samples = np.concatenate(members)
        order = permutation(len(samples), seed=self.seed, epoch=self.epoch, stream=window + 1)
        return samples[order]


class RunOrder:
    """The samples of a run, epoch after epoch."""

    def __init__(
        self,
        shard_sizes: Sequence[int] | Numbers,
        *,
        seed: int,
        window: int,
        last_batch: str = "fill",
        global_batch: int = 1,
    ):
        sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.samples_per_epoch = epoch_length(int(sizes.sum()), last_batch, global_batch)
        self._epoch = lru_cache(maxsize=2)(
            lambda epoch: EpochOrder(sizes, seed=seed, epoch=epoch, window=window)
        )

    def samples_at(self, positions: Numbers) -> Numbers:
        """Which sample each position shows."""
        epochs, places = np.divmod(positions, self.samples_per_epoch)
        samples = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            samples[here] = self._epoch(epoch).samples_at(places[here])
        return samples

    def shards_wanted(self, position: int) -> list[int]:
        """The shards of the window that a position lies in, then those of the next."""
        epoch, place = divmod(position, self.samples_per_epoch)
        order = self._epoch(epoch)
        window = int(order.window_of(np.array([place]))[0])
        following = order.shards_of(window + 1)
        if not len(following):
            following = self._epoch(epoch + 1).shards_of(0)
        return list(dict.fromkeys([*order.shards_of(window).tolist(), *following.tolist()]))


def epoch_length(samples: int, last_batch: str, global_batch: int) -> int:
    """Positions of an epoch: `fill` completes its last batch from the next epoch, `drop` leaves it out."""
    if last_batch not in ("fill", "drop"):
        raise UserError(f"data.last_batch={last_batch} is not known; choose fill or drop")
    length = samples if last_batch == "fill" else samples // global_batch * global_batch
    if not length:
        raise UserError(
            f"data.last_batch=drop leaves nothing of {samples} samples in batches of "
            f"train.global_batch={global_batch}; use data.last_batch=fill or a smaller batch"
        )
    return length


def share_of_rank(block_start: int, *, global_batch: int, rank: int, world_size: int) -> Numbers:
    """The positions of one global batch that fall to a rank."""
    return np.arange(block_start + rank, block_start + global_batch, world_size)
