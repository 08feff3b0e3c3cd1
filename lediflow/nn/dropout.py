"""Dropout with masks computed per sample: entries are set to 0 with probability p, the others divided by 1 - p.

Whether an entry is dropped depends only on (key of its sample, block of the model, position in the sample's tensor), so
a sample has the same mask in any batch, on any rank, after any restart, and when its layer is recomputed
(activation checkpointing). No random generator is used, so a compiled model has no graph break.

A 32-bit word decides for two entries, 16 bits each: the rate is exact to 2^-17. The word is a hash of the position and
two keys, which a 64-bit hash derives from sample and block: `lowbias32`, with the second key applied in its middle.
Sources: Srivastava et al., "Dropout" (2014); Wellons, "Prospecting for hash functions" (2018).
"""

import math

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor, nn

from lediflow.flow.noise import GOLDEN_GAMMA, mix, signed
from lediflow.nn.shapes import SampleKeys

WEYL_32 = 0x9E3779B9 - 2**32  # 2^32 / golden ratio as an int32: spreads consecutive positions
MULTIPLIER_1, MULTIPLIER_2 = 0x7FEB352D, 0x846CA68B - 2**32
STEPS = 2**16  # rates are multiples of 1 / STEPS


class DropsEntries(nn.Module):
    """Base class of blocks with one dropout; it is active only in training mode and at rates above 0."""

    dropout = 0.0  # probability of an entry being dropped
    place = 0  # 64-bit word that identifies the block in its model, see number_places

    def dropped(
        self, x: Float[Tensor, " batch *dims"], keys: SampleKeys | None
    ) -> Float[Tensor, " batch *dims"]:
        """x with entries dropped; x itself in evaluation mode and at rate 0."""
        if not (self.training and self.dropout):
            return x
        return drop(x, self.dropout, checked(keys, len(x), self.dropout), self.place)


def number_places(model: nn.Module) -> None:
    """Give every block of a model its own `place`, so that their masks are independent."""
    blocks = (part for part in model.modules() if isinstance(part, DropsEntries))
    for number, block in enumerate(blocks, start=1):
        block.place = signed(number * GOLDEN_GAMMA)


def drop(
    x: Float[Tensor, " batch *dims"], rate: float, keys: SampleKeys, place: int
) -> Float[Tensor, " batch *dims"]:
    """x / (1 - rate) for kept entries, 0 for the others. Stores one byte per entry for the backward pass."""
    count = math.prod(x.shape[1:])
    kept = kept_entries(keys, place, count, rate).reshape(x.shape)
    return (x * kept).mul_(1 / (1 - rate))


def kept_entries(keys: SampleKeys, place: int, count: int, rate: float) -> Bool[Tensor, "batch count"]:
    """True for entries that are kept. The rate is rounded to a multiple of 2^-16."""
    threshold = min(round(rate * STEPS), STEPS - 1) * 2**16 - 2**31  # in the order of int32
    words = hashed_positions(mix(keys + place), (count + 1) // 2)
    return torch.cat((words >= threshold, words << 16 >= threshold), dim=1)[:, :count]


def hashed_positions(keys: SampleKeys, count: int) -> Int32[Tensor, "batch count"]:
    """One hash per position; computed in place, because memory bandwidth is the limit on CPUs."""
    low, high = keys << 32 >> 32, keys >> 32  # both fit int32
    positions = torch.arange(count, dtype=torch.int32, device=keys.device) * WEYL_32
    words = low.to(torch.int32)[:, None] + positions
    fold(words, 16).mul_(MULTIPLIER_1).bitwise_xor_(high.to(torch.int32)[:, None])
    return fold(fold(words, 15).mul_(MULTIPLIER_2), 16)


def fold(words: Int32[Tensor, "batch count"], bits: int) -> Int32[Tensor, "batch count"]:
    """words ^ (words >> bits), in place; an int32 shift copies the sign bit, which is masked off."""
    return words.bitwise_xor_((words >> bits).bitwise_and_(2 ** (32 - bits) - 1))


def checked(keys: SampleKeys | None, batch: int, rate: float) -> SampleKeys:
    """The keys; ValueError if they are missing or not int64 of shape (batch,)."""
    if keys is None:
        raise ValueError(
            f"dropout of {rate} in training, but no sample keys were given; call the model with "
            f"dropout=SampleNoise(seed).words(ids, 'dropout'), or put it into evaluation: model.eval()"
        )
    if keys.shape != (batch,) or keys.dtype != torch.int64:
        raise ValueError(
            f"dropout: keys {keys.dtype} of shape {tuple(keys.shape)} for a batch of {batch}; give one word for each "
            f"sample, int64 of shape ({batch},)"
        )
    return keys
