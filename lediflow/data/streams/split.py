"""Which samples are held out from training: a pure function of their keys.

A key is hashed to a number in [0, 1) and held out below the fraction, so the split does not depend on shards,
seed or codec, and a larger fraction contains a smaller one. Hash: the finaliser of splitmix64 (Steele, Lea,
Flood 2014).
"""

import numpy as np
from jaxtyping import Bool, Int64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


def is_held_out(keys: Int64[np.ndarray, " samples"], fraction: float) -> Bool[np.ndarray, " samples"]:
    """True for about `fraction` of the keys."""
    bits = keys.astype(np.uint64) * GOLDEN + GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * SECOND
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)) * 2.0**-53 < fraction


def samples_of(
    split: str, keys: Int64[np.ndarray, " samples"], fraction: float
) -> Int64[np.ndarray, " chosen"]:
    """Numbers of the samples of a split: "train", "heldout" or "all"."""
    if split in ("train", "all") and not fraction:  # spares large sets the hashing
        return np.arange(len(keys))
    held_out = is_held_out(keys, fraction)
    chosen = {"train": ~held_out, "heldout": held_out, "all": np.ones_like(held_out)}
    if split not in chosen:
        raise ValueError(f"split {split!r} is not known; choose one of {', '.join(chosen)}")
    return np.flatnonzero(chosen[split])


def spread_over(samples: Int64[np.ndarray, " samples"], most: int) -> Int64[np.ndarray, " chosen"]:
    """At most `most` of the samples, spread evenly over them."""
    count = min(most, len(samples))
    return samples[np.arange(count) * len(samples) // max(count, 1)]
