"""Binned statistics of the loss: sums and counts by time, by the prior's sigma, or by channel.

Sums and counts can be added over batches and ranks, so that means by bin are exact. Nothing here synchronises with the
device: bins are computed arithmetically, and membership is a table of bins x values. To keep that table small, about
a thousand pixels per image are used, at fixed positions. On one CPU core this takes 0.2 % of a training step of the
demo's models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TIME_BINS = 10  # tenths of [0, 1]
# Bin edges of sigma double from one grey level (2/255 is about 2^-7 for pixels in [-1, 1]) to twice the standard
# deviation of N(0, I); the first and last bins contain everything below and above.
SMALLEST_SIGMA_POWER, SIGMA_BINS = -7, 10
PIXELS = 1024  # maximum number of entries of an image that are binned


class Binned(NamedTuple):
    """Sum and number of the values in each bin."""

    sums: Float[Tensor, " bins"]
    counts: Float[Tensor, " bins"]


def sigma_edges() -> list[float]:
    """The edges between the bins of sigma."""
    return [2.0 ** (SMALLEST_SIGMA_POWER + place) for place in range(SIGMA_BINS - 1)]


@torch.no_grad()
def by_time(values: Float[Tensor, " batch"], t: Float[Tensor, " batch"]) -> Binned:
    """Values of samples, binned by their time t in tenths of [0, 1]."""
    return binned(values, (t * TIME_BINS).floor().long(), TIME_BINS)


@torch.no_grad()
def by_sigma(values: Float[Tensor, "batch pixels"], logvar: Float[Tensor, "batch pixels"]) -> Binned:
    """Values of pixels, binned by their sigma in powers of two."""
    power = (logvar / (2 * math.log(2))).floor().long()
    return binned(values.flatten(), power.flatten() - SMALLEST_SIGMA_POWER + 1, SIGMA_BINS)


@torch.no_grad()
def by_channel(values: Float[Tensor, "batch channels *grid"]) -> Binned:
    """Sums over the grid, binned by channel; the mean of a bin is the channel's sum for one sample."""
    sums = values.flatten(2).sum(2).sum(0)
    return Binned(sums, torch.full_like(sums, len(values)))


def some_pixels(image: Float[Tensor, " batch *dims"]) -> Float[Tensor, "batch pixels"]:
    """About PIXELS entries at fixed positions, all entries of a small image; an odd stride reaches every column."""
    entries = image.detach().flatten(1)
    return entries[:, :: -(-entries.shape[1] // PIXELS) | 1]


def binned(values: Float[Tensor, " values"], index: Int64[Tensor, " values"], bins: int) -> Binned:
    """Sums and counts by bin; an index out of range counts for the nearest bin."""
    is_member = index.clamp(0, bins - 1)[:, None] == torch.arange(bins, device=index.device)
    sums = torch.where(is_member, values.detach().float()[:, None], 0.0).sum(0)
    return Binned(sums, is_member.float().sum(0))
