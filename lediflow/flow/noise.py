"""Random numbers that belong to a sample: functions of (seed, stream name, sample id, index) alone.

The k-th sample of a run then gets the same draws in any batch, on any rank, after any restart, on CPU or GPU:
the integers are the same bit for bit, and the normals to the rounding of log and cos.

A counter is hashed, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011); the hash is
the finaliser of splitmix64 (Steele et al., 2014), applied twice with two keys per sample. 64-bit words are
held in int64 tensors, whose sums and products wrap around as unsigned words would.
"""

import math
import zlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

Words = Int[Tensor, "*shape"]
Ids = Int[Tensor, " batch"]


def signed(word: int) -> int:
    """The int64 with the same 64 bits."""
    word &= 2**64 - 1
    return word - 2**64 if word >= 2**63 else word


GOLDEN_GAMMA = signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: consecutive counters land far apart
MULTIPLIER_1 = signed(0xBF58476D1CE4E5B9)
MULTIPLIER_2 = signed(0x94D049BB133111EB)


class SampleNoise:
    """All randomness of a run, keyed by sample. Streams of different names are independent."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def normal(self, ids: Ids, name: str, shape: tuple[int, ...] = ()) -> Float[Tensor, "batch *shape"]:
        """Standard normal draws in float32: Box-Muller, two normals per 64-bit word."""
        count = math.prod(shape)
        words = self._words(ids, name, (count + 1) // 2)
        radius = (-2 * unit_interval(shift_right(words, 32), bits=32).log()).sqrt()
        angle = 2 * math.pi * unit_interval(words & 0xFFFFFFFF, bits=32)
        pairs = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
        return pairs[:, :count].reshape(len(ids), *shape)

    def uniform(self, ids: Ids, name: str, shape: tuple[int, ...] = ()) -> Float[Tensor, "batch *shape"]:
        """Draws from the open interval (0, 1) in float32: the midpoints of 2^23 equal cells."""
        words = self._words(ids, name, math.prod(shape))
        return unit_interval(shift_right(words, 41), bits=23).reshape(len(ids), *shape)

    def words(self, ids: Ids, name: str) -> Int[Tensor, " batch"]:
        """One 64-bit word for each sample: the key of a model's own random choices (dropout)."""
        return self._words(ids, name, 1)[:, 0]

    def _words(self, ids: Ids, name: str, count: int) -> Int[Tensor, "batch count"]:
        key_1 = mix(self._stream(name) + GOLDEN_GAMMA * (ids.long() + 1))
        key_2 = mix(key_1 + GOLDEN_GAMMA)
        counters = GOLDEN_GAMMA * torch.arange(1, count + 1, device=ids.device)
        return mix(mix(key_1[:, None] + counters) + key_2[:, None])

    def _stream(self, name: str) -> int:
        seed = torch.tensor(signed(self.seed))
        return int(mix(mix(seed) + zlib.crc32(name.encode())))


def mix(words: Words) -> Words:
    """splitmix64's finaliser: a bijection of 64-bit words that flips each output bit half the time."""
    words = (words ^ shift_right(words, 30)) * MULTIPLIER_1
    words = (words ^ shift_right(words, 27)) * MULTIPLIER_2
    return words ^ shift_right(words, 31)


def shift_right(words: Words, bits: int) -> Words:
    """Unsigned shift; int64's own would carry the sign along."""
    return (words >> bits) & (2 ** (64 - bits) - 1)


def unit_interval(words: Words, bits: int) -> Float[Tensor, "*shape"]:
    """Integers below 2^bits as the midpoints of so many cells of (0, 1), in float32."""
    return (words.to(torch.float32) + 0.5) * 2.0**-bits
