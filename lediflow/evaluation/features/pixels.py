"""Images as extractors want them: whole pixel values 0..255, three channels, a fixed size.

Rounding first makes the features of an image in memory those of its PNG, so that a metric does not depend on
whether the samples were written to disk in between.
"""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def rgb_pixels(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 3 height width"]:
    """The bytes a PNG would hold, as floats; grey repeated over three channels."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images of shape {tuple(images.shape)}; pass (batch, 1 or 3, height, width), decoded to pixels"
        )
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return repeat(pixels, "b c h w -> b (c rgb) h w", rgb=3 // images.shape[1])


def resize(pixels: Float[Tensor, "batch 3 height width"], size: int) -> Float[Tensor, "batch 3 size size"]:
    """Shorter side to `size` (bicubic, antialiased, as Pillow does it), then the centre square."""
    height, width = pixels.shape[-2:]
    scaled = [max(size, round(side * size / min(height, width))) for side in (height, width)]
    resized = F.interpolate(pixels, scaled, mode="bicubic", antialias=True).clamp(0, 255)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    return resized[..., top : top + size, left : left + size]


def standardise(
    pixels: Float[Tensor, "batch 3 height width"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "batch 3 height width"]:
    """(pixels - mean) / std, per channel; mean and std in the units of the pixels."""
    channel_mean, channel_std = (torch.tensor(x, device=pixels.device)[:, None, None] for x in (mean, std))
    return (pixels - channel_mean) / channel_std
