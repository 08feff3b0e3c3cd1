"""Images as extractors want them: whole pixel values 0..255, three channels, a fixed size.

Rounding first makes the features of an image in memory those of its PNG, so that a metric does not depend on
whether the samples were written to disk in between.
"""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lediflow.errors import UserError


def rgb_pixels(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 3 height width"]:
    """The bytes a PNG would hold, as floats; grey repeated over three channels."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images of shape {tuple(images.shape)}; pass (batch, 1 or 3, height, width), decoded to pixels"
        )
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return repeat(pixels, "b c h w -> b (c rgb) h w", rgb=3 // images.shape[1])


def check_square(images: Float[Tensor, "batch channels height width"]) -> None:
    """Refuse what would have to be cropped or distorted."""
    height, width = images.shape[-2:]
    if height != width:
        raise UserError(
            f"images of {width} x {height}: features are of square images; crop them first, both sets in the same way"
        )


def resize(pixels: Float[Tensor, "batch 3 side side"], size: int) -> Float[Tensor, "batch 3 size size"]:
    """A square image at another size: bicubic, antialiased, as Pillow does it but for the rounding."""
    return F.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 255)


def standardise(
    pixels: Float[Tensor, "batch 3 height width"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "batch 3 height width"]:
    """(pixels - mean) / std, per channel; mean and std in the units of the pixels."""
    channel_mean, channel_std = (torch.tensor(x, device=pixels.device)[:, None, None] for x in (mean, std))
    return (pixels - channel_mean) / channel_std
