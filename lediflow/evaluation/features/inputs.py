"""What feature extractors share: pixel values and their resizing, and weights files.

Images become whole pixel values 0 ... 255 in three channels at a fixed size. Because of the rounding, an image in
memory has the same features as its PNG: metrics do not depend on whether samples were written to disk in between.

`resize_bytes` is Pillow's bicubic resizing of bytes, bit for bit, on any device; CLIP's metrics are defined with it. It
has two passes, first along the width, then along the height, each rounded to bytes. The filter weights of a pass are
integers with 22 binary places, so sums of their products with bytes are integers below 2^53, exact in float64. The
filter is Keys' cubic with a = -1/2, widened when an image is reduced.

Weights files are identified by their hash. Nothing is downloaded.
"""

from __future__ import annotations

import os
import pickle
from functools import cache
from pathlib import Path

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lediflow.disk import sha256_of
from lediflow.errors import UserError

BITS = 22  # binary places of a weight
SUPPORT = 2.0  # reach of the cubic to either side, in pixels
FOLDER = "LEDIFLOW_WEIGHTS"  # environment variable: a folder of weights files


def rgb_pixels(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 3 height width"]:
    """The bytes that a PNG would contain, as floats; grey is repeated over three channels."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images of shape {tuple(images.shape)}; pass (batch, 1 or 3, height, width), decoded to pixels"
        )
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return repeat(pixels, "b c h w -> b (c rgb) h w", rgb=3 // images.shape[1])


def check_square(images: Float[Tensor, "batch channels height width"]) -> None:
    """UserError for images that are not square, which would have to be cropped or distorted."""
    height, width = images.shape[-2:]
    if height != width:
        raise UserError(
            f"images of {width} x {height}: features are of square images; crop them first, both sets in the same way"
        )


def resize(pixels: Float[Tensor, "batch 3 side side"], size: int) -> Float[Tensor, "batch 3 size size"]:
    """Square images resized: bicubic, antialiased, as Pillow does it except for the rounding."""
    return F.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 255)


def standardise(
    pixels: Float[Tensor, "batch 3 height width"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "batch 3 height width"]:
    """(pixels - mean) / std, per channel; mean and std in the units of the pixels."""
    channel_mean, channel_std = (torch.tensor(x, device=pixels.device)[:, None, None] for x in (mean, std))
    return (pixels - channel_mean) / channel_std


def resize_bytes(
    pixels: Float[Tensor, "batch channels height width"], size: int
) -> Float[Tensor, "batch channels size size"]:
    """Images with whole values 0..255 resized to such images, as floats."""
    height, width = pixels.shape[-2:]
    across, down = (filter_weights(side, size).to(pixels.device) for side in (width, height))
    narrow = to_bytes(pixels.double() @ across.T)
    return to_bytes(down @ narrow).to(pixels.dtype)


def to_bytes(sums: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Divide by 2^22, rounding halves up as adding a half and shifting does."""
    return ((sums + 2.0 ** (BITS - 1)) / 2.0**BITS).floor_().clamp_(0, 255)


@cache
def filter_weights(inputs: int, outputs: int) -> Float[Tensor, "outputs inputs"]:
    """Weight of each input pixel in each output pixel, in units of 2^-22."""
    scale = inputs / outputs
    stretch = max(scale, 1.0)  # when reducing, the filter covers the area of an output pixel
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


def find_weights(path: str | None, name: str, what: str, how: str) -> Path:
    """The given file, or `name` in the folder $LEDIFLOW_WEIGHTS; UserError with how to get it if there is none."""
    folder = os.environ.get(FOLDER)
    wanted = Path(path) if path else Path(folder) / name if folder else None
    if wanted is not None and wanted.is_file():
        return wanted
    found = f"{wanted} is not a file" if wanted else f"no path was given, and ${FOLDER} is not set"
    raise UserError(
        f"{what}, but {found}. Get them once on a machine with a network: {how}. Then pass features.path=FILE, or put "
        f"the file as {name} into a folder that ${FOLDER} names"
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a file of torch.save, without running code in it; ValueError for any other content."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError("torch.load(weights_only=True) cannot read it") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"a {type(found).__name__} is in it, not tensors by name")
    return found


def weights_record(name: str, path: Path, preprocessing: str, dim: int) -> dict[str, str | int]:
    """Record that identifies features: extractor, hash of the weights, preprocessing, dimension."""
    return {"features": name, "weights": sha256_of(path), "preprocessing": preprocessing, "dim": dim}
