"""Pictures that a user gives, as bytes of the models' size and channels, decoded by the functions that `prepare` uses.

Files come out upright, in sRGB, in 8 bits. `centred` crops and scales them as `prepare` does. `exact` takes a picture
only if its pixels are used as they are: of the models' size, opaque, of 8 bits, in the models' colours. READERS has
both, by the value of the option `fit`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lediflow.codecs import bytes_to_signal
from lediflow.data.photograph import PILLOW_MODES, centre_square, decoded_photograph
from lediflow.data.pixels import UnusableImageError, opaque_srgb
from lediflow.errors import UserError

MODES = {1: "grey", 3: "rgb"}  # by the models' number of channels
PNG_SIGNATURE, PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # position of the number of bits per channel
TIFF_BITS = 258
BYTE = 8


class Picture(NamedTuple):
    """A picture of the models' size, with the SHA-256 of its file and the upright width and height of it."""

    pixels: UInt8[Tensor, "channels height width"]
    sha256: str
    source_size: tuple[int, int]

    @property
    def signal(self) -> Float[Tensor, "1 channels height width"]:
        """The picture in [-1, 1], as a batch of one."""
        return bytes_to_signal(self.pixels)[None]


def read_content(path: str, option: str) -> bytes:
    """The bytes of a file; UserError, with the option that named it, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{option}={path} cannot be read ({error.strerror or error}); give the file of a picture"
        ) from error


def centred(path: str, option: str, size: int, channels: int) -> Picture:
    """The central square of a photograph, scaled to `size`; UserError if it is unusable, or smaller than that."""
    content = read_content(path, option)
    try:
        photograph = decoded_photograph(content, size)
        square = centre_square(photograph, size=size, mode=MODES[channels])
    except UnusableImageError as error:
        raise UserError(f"{option}={path} is {error}; give another picture") from error
    digest = hashlib.sha256(content).hexdigest()
    return Picture(as_pixels(square), digest, (photograph.width, photograph.height))


def exact(path: str, option: str, size: int, channels: int) -> Picture:
    """A picture whose pixels are used unchanged; UserError if it is unusable, or not as `exact_pixels` demands."""
    content = read_content(path, option)
    try:
        image = decoded_photograph(content).image
        bits = bits_per_channel(content)
    except UnusableImageError as error:
        raise UserError(f"{option}={path} is {error}; give another picture") from error
    pixels = exact_pixels(image, f"{option}={path}", size, channels, bits)
    return Picture(pixels, hashlib.sha256(content).hexdigest(), (size, size))


def exact_pixels(
    image: Image.Image, name: str, size: int, channels: int, bits: int = BYTE
) -> UInt8[Tensor, "channels height width"]:
    """The bytes of an upright picture of `bits` bits per channel, unchanged.

    UserError if it is not of this size, opaque, of 8 bits, or in colour for models of grey pictures.
    """
    found = f"{name} has {image.width} x {image.height} pixels, the models {size} x {size}"
    if min(image.size) < size:
        raise UserError(f"{found}; give a larger one: pictures are not enlarged")
    if image.size != (size, size):
        raise UserError(
            f"{found}, and pixels outside of the mask stay as they are; crop and scale it first, or give fit=centre "
            f"for its central square, scaled to {size} x {size}"
        )
    if bits > BYTE:
        raise UserError(f"{name} has {bits} bits per channel, and results have 8; save it with 8 bits first")
    if image.has_transparency_data:
        raise UserError(
            f"{name} has transparent pixels; save it without transparency. To repaint where it is transparent, give it "
            "as the mask as well"
        )
    try:
        opaque = opaque_srgb(image)
    except UnusableImageError as error:
        raise UserError(f"{name} is {error}; give another picture") from error
    if channels == 1 and is_coloured(opaque):
        raise UserError(
            f"{name} is a colour picture, and these models make grey ones; convert it to grey first"
        )
    return as_pixels(opaque.convert(PILLOW_MODES[MODES[channels]]))


READERS = {"exact": exact, "centre": centred}


def bits_per_channel(content: bytes) -> int:
    """The depth that a file states; 8 where its format has no other."""
    if content.startswith(PNG_SIGNATURE):
        return max(BYTE, content[PNG_DEPTH])
    image = Image.open(io.BytesIO(content))
    if image.mode.startswith(("I", "F")):
        return 16
    bits = getattr(image, "tag_v2", {}).get(TIFF_BITS, BYTE)
    return max(BYTE, *(bits if isinstance(bits, tuple) else (bits,)))


def is_coloured(image: Image.Image) -> bool:
    """Whether any pixel of an opaque picture is not grey."""
    array = np.asarray(image.convert("RGB"))
    return bool((array != array[..., :1]).any())


def as_pixels(image: Image.Image) -> UInt8[Tensor, "channels height width"]:
    """The bytes of a picture, channels first."""
    array = np.array(image)
    return torch.from_numpy(
        array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    )


def refuse_inside(output: str, paths: Sequence[tuple[str, str]]) -> None:
    """UserError for a picture (option, path) in the output folder, where results would replace it."""
    for option, path in paths:
        if os.path.realpath(Path(path).parent) == os.path.realpath(output):
            raise UserError(
                f"{option}={path} lies in output={output}, where results are written; choose another output"
            )
