"""Pillow's bicubic resizing of bytes, to the bit, on any device: what CLIP's metrics are defined with.

Two passes, first along the width, then along the height, each rounded to bytes. The weights of a pass are integers
with 22 binary places, and sums of their products with bytes are integers below 2^53: float64 adds them without an
error. Pillow's filter is Keys' cubic with a = -1/2, widened where an image becomes smaller.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

BITS = 22  # binary places of a weight
SUPPORT = 2.0  # pixels that the cubic reaches to either side


def resize_bytes(
    pixels: Float[Tensor, "batch channels height width"], size: int
) -> Float[Tensor, "batch channels size size"]:
    """Whole values 0..255 of images at another size, as floats."""
    height, width = pixels.shape[-2:]
    across, down = (weights(side, size).to(pixels.device) for side in (width, height))
    narrow = to_bytes(pixels.double() @ across.T)
    return to_bytes(down @ narrow).to(pixels.dtype)


def to_bytes(sums: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Halves are rounded up, as adding a half and shifting does."""
    return ((sums + 2.0 ** (BITS - 1)) / 2.0**BITS).floor_().clamp_(0, 255)


@cache
def weights(inputs: int, outputs: int) -> Float[Tensor, "outputs inputs"]:
    """What each output pixel takes of each input pixel, in units of 2^-22."""
    scale = inputs / outputs
    stretch = max(scale, 1.0)  # a smaller image: the filter covers what becomes one pixel
    centre = (torch.arange(outputs, dtype=torch.float64)[:, None] + 0.5) * scale
    pixel = torch.arange(inputs, dtype=torch.float64)[None, :]
    first = (centre - SUPPORT * stretch + 0.5).trunc().clamp(min=0)
    stop = (centre + SUPPORT * stretch + 0.5).trunc()
    taken = cubic((pixel - centre + 0.5) / stretch) * ((pixel >= first) & (pixel < stop))
    share = taken / taken.sum(dim=1, keepdim=True) * 2.0**BITS
    return (share.abs() + 0.5).floor() * share.sign()


def cubic(x: Float[Tensor, "..."], a: float = -0.5) -> Float[Tensor, "..."]:
    """Keys 1981, "Cubic convolution interpolation for digital image processing"."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
