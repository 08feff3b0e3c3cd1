"""Which samples are held out, and the order of the others: pure functions that do not depend on ranks or threads.

Held out: a sample's key is hashed to a number in [0, 1) and held out if that is below the fraction. So the split does
not depend on shards, seed or codec, and a larger fraction contains a smaller one. Hash of key k: output k of
splitmix64 (Steele, Lea, Flood 2014) for the seed 0, counted from 0.

Order: position k counts the images of the whole run. With n samples per epoch it lies in epoch k // n, and each epoch
shows every sample once: shards are permuted, then samples are permuted within windows of a few consecutive shards, so
that few files are read at a time. A window's order is computed when it is first needed, so a run can start anywhere at
the cost of one window. Step s of the run is the block of positions [s B, (s + 1) B); rank r of R takes every R-th
position of the block, starting at r.

Permutations sort raw Philox bits, which NumPy guarantees to stay the same; its shuffle methods are not guaranteed. The
key is (seed, epoch); the counter's highest word separates the permutation of the shards (0) from those of the windows
(1, 2, ...).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Int64

from lediflow.errors import UserError
from lediflow.flow.noise import GOLDEN_GAMMA, mix, shift_right

Numbers = Int64[np.ndarray, " count"]
WINDOWS_KEPT = 4


def permutation(count: int, *, seed: int, epoch: int, stream: int) -> Numbers:
    """A permutation of 0 ... count - 1 that depends on (seed, epoch, stream) alone."""
    key = np.array([seed, epoch], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64))
    return np.argsort(bits.random_raw(count), kind="stable")


class EpochOrder:
    """The order of one epoch; `window` shards are shuffled together, 0 means all."""

    def __init__(self, shard_sizes: Numbers, *, seed: int, epoch: int, window: int):
        self.seed, self.epoch = seed, epoch
        self.width = window or max(len(shard_sizes), 1)
        self.shards = permutation(len(shard_sizes), seed=seed, epoch=epoch, stream=0)
        # first sample of each shard, in shuffled order
        self.first = (np.cumsum(shard_sizes) - shard_sizes)[self.shards]
        self.sizes = shard_sizes[self.shards]
        # position in the epoch at which each window ends
        self.window_ends = np.add.reduceat(self.sizes, np.arange(0, len(self.sizes), self.width)).cumsum()
        self._samples = lru_cache(maxsize=WINDOWS_KEPT)(self._mixed)

    def samples_at(self, places: Numbers) -> Numbers:
        """Indices of the samples at positions of the epoch."""
        samples = np.empty_like(places)
        windows = self.window_of(places)
        for window in np.unique(windows).tolist():
            here = windows == window
            begin = self.window_ends[window - 1] if window else 0
            samples[here] = self._samples(window)[places[here] - begin]
        return samples

    def window_of(self, places: Numbers) -> Numbers:
        """Window of each position of the epoch."""
        return np.searchsorted(self.window_ends, places, side="right")

    def shards_of(self, window: int) -> Numbers:
        """The shards of a window; none after the last window."""
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
        """Index of the sample at each position of the run."""
        epochs, places = np.divmod(positions, self.samples_per_epoch)
        samples = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            samples[here] = self._epoch(epoch).samples_at(places[here])
        return samples

    def shards_wanted(self, position: int) -> list[int]:
        """The shards of the window of a position, followed by those of the next window."""
        epoch, place = divmod(position, self.samples_per_epoch)
        order = self._epoch(epoch)
        window = int(order.window_of(np.array([place]))[0])
        following = order.shards_of(window + 1)
        if not len(following):
            following = self._epoch(epoch + 1).shards_of(0)
        return list(dict.fromkeys([*order.shards_of(window).tolist(), *following.tolist()]))


def epoch_length(samples: int, last_batch: str, global_batch: int) -> int:
    """Positions per epoch: `fill` completes the last batch from the next epoch, `drop` omits it."""
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
    """The positions of one global batch that belong to a rank."""
    return np.arange(block_start + rank, block_start + global_batch, world_size)


def is_held_out(keys: Int64[np.ndarray, " samples"], fraction: float) -> Bool[np.ndarray, " samples"]:
    """Whether each key is held out: true for about `fraction` of the keys."""
    words = mix(torch.from_numpy(keys.astype(np.int64)) * GOLDEN_GAMMA + GOLDEN_GAMMA)
    return shift_right(words, 11).numpy() * 2.0**-53 < fraction


def samples_of(
    split: str, keys: Int64[np.ndarray, " samples"], fraction: float
) -> Int64[np.ndarray, " chosen"]:
    """Indices of the samples of a split: "train", "heldout" or "all"."""
    if split in ("train", "all") and not fraction:  # no need to hash the keys of a large set
        return np.arange(len(keys))
    held_out = is_held_out(keys, fraction)
    chosen = {"train": ~held_out, "heldout": held_out, "all": np.ones_like(held_out)}
    if split not in chosen:
        raise ValueError(f"split {split!r} is not known; choose one of {', '.join(chosen)}")
    return np.flatnonzero(chosen[split])


def spread_over(samples: Int64[np.ndarray, " samples"], most: int) -> Int64[np.ndarray, " chosen"]:
    """At most `most` of the samples, evenly spaced."""
    count = min(most, len(samples))
    return samples[np.arange(count) * len(samples) // max(count, 1)]
