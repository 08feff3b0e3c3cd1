"""Where in a batch the loss comes from: a value's sum and count by time, by the prior's deviation sigma, or by channel.

Sums and counts of several batches and ranks add up to theirs, so a mean by bin is right whatever it was taken over.
Nothing here waits for the device: bins are found by arithmetic, and membership is a table of bins x values. That
table would be large for every pixel of a batch, so pixels are counted at fixed places, a thousand of an image.
On one CPU core that is 0.2 % of a training step of the demo's models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TIME_BINS = 10  # tenths of [0, 1]
# Bins of sigma double from one grey level (2/255 is about 2^-7 where pixels span [-1, 1]) to twice the deviation
# of the Gaussian baseline's start; the first and the last one have everything below and above.
SMALLEST_SIGMA_POWER, SIGMA_BINS = -7, 10
PIXELS = 1024  # at which an image's errors are told apart


class Binned(NamedTuple):
    """Of each bin, the sum of a value and how many there were."""

    sums: Float[Tensor, " bins"]
    counts: Float[Tensor, " bins"]


def sigma_edges() -> list[float]:
    """Where one bin of sigma ends and the next begins."""
    return [2.0 ** (SMALLEST_SIGMA_POWER + place) for place in range(SIGMA_BINS - 1)]


@torch.no_grad()
def by_time(values: Float[Tensor, " batch"], t: Float[Tensor, " batch"]) -> Binned:
    """Of each tenth of [0, 1], the value of the samples whose time t lies in it."""
    return binned(values, (t * TIME_BINS).floor().long(), TIME_BINS)


@torch.no_grad()
def by_sigma(values: Float[Tensor, "batch pixels"], logvar: Float[Tensor, "batch pixels"]) -> Binned:
    """Of each doubling of sigma, the value of the pixels whose deviation lies in it."""
    power = (logvar / (2 * math.log(2))).floor().long()
    return binned(values.flatten(), power.flatten() - SMALLEST_SIGMA_POWER + 1, SIGMA_BINS)


@torch.no_grad()
def by_channel(values: Float[Tensor, "batch channels *grid"]) -> Binned:
    """Sums over the grid by channel; the mean of a bin is the channel's sum for one sample."""
    sums = values.flatten(2).sum(2).sum(0)
    return Binned(sums, torch.full_like(sums, len(values)))


def some_pixels(image: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch pixels"]:
    """The entries at fixed places all over an image; all of a small one. An odd stride meets every column."""
    entries = image.detach().flatten(1)
    return entries[:, :: -(-entries.shape[1] // PIXELS) | 1]


def binned(values: Float[Tensor, " values"], index: Int64[Tensor, " values"], bins: int) -> Binned:
    """Sums and counts by bin; an index outside counts for the nearest bin."""
    is_member = index.clamp(0, bins - 1)[:, None] == torch.arange(bins, device=index.device)
    sums = torch.where(is_member, values.detach().float()[:, None], 0.0).sum(0)
    return Binned(sums, is_member.float().sum(0))
