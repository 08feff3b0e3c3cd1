"""Images as extractors want them: whole pixel values 0..255, three channels, a fixed size.

Rounding first makes the features of an image in memory those of its PNG, so that a metric does not depend on
whether the samples were written to disk in between.

Pillow's bicubic resizing of bytes, to the bit, on any device: what CLIP's metrics are defined with.

Two passes, first along the width, then along the height, each rounded to bytes. The weights of a pass are integers
with 22 binary places, and sums of their products with bytes are integers below 2^53: float64 adds them without an
error. Pillow's filter is Keys' cubic with a = -1/2, widened where an image becomes smaller.

Weights files: where they may lie, and what they are by their hash. Nothing is downloaded.
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


BITS = 22  # binary places of a weight
SUPPORT = 2.0  # pixels that the cubic reaches to either side


def resize_bytes(
    pixels: Float[Tensor, "batch channels height width"], size: int
) -> Float[Tensor, "batch channels size size"]:
    """Whole values 0..255 of images at another size, as floats."""
    height, width = pixels.shape[-2:]
    across, down = (filter_weights(side, size).to(pixels.device) for side in (width, height))
    narrow = to_bytes(pixels.double() @ across.T)
    return to_bytes(down @ narrow).to(pixels.dtype)


def to_bytes(sums: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Halves are rounded up, as adding a half and shifting does."""
    return ((sums + 2.0 ** (BITS - 1)) / 2.0**BITS).floor_().clamp_(0, 255)


@cache
def filter_weights(inputs: int, outputs: int) -> Float[Tensor, "outputs inputs"]:
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


FOLDER = "LEDIFLOW_WEIGHTS"  # the variable that names a folder of weights files


def find_weights(path: str | None, name: str, what: str, how: str) -> Path:
    """The file given, or the one called `name` in the folder $LEDIFLOW_WEIGHTS; a word on how to get it otherwise."""
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
    """Tensors by name from a file of torch.save; code in it is never run. ValueError says what else was found."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError("torch.load(weights_only=True) cannot read it") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"a {type(found).__name__} is in it, not tensors by name")
    return found


def weights_record(name: str, path: Path, preprocessing: str, dim: int) -> dict[str, str | int]:
    """What statistics of these features are bound to."""
    return {"features": name, "weights": sha256_of(path), "preprocessing": preprocessing, "dim": dim}
