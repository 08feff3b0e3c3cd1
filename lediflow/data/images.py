"""One photograph: bytes -> square picture of the asked size and mode -> bytes.

The picture is the centre square of the photograph, upright, in sRGB, transparency on white, resized once with Lanczos.
Pictures are never enlarged: a small one is reported, as is an unreadable one.

Of a photograph only the decoded pixels are held whole; large JPEGs are decoded at a half, a quarter or an eighth of
their side where that leaves at least twice the asked one. Everything behind happens in bands of rows. Lanczos treats
rows and columns one after the other, so the picture is the same, byte for byte, as without bands.
"""

import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lediflow.data.photograph import Photograph, decoded_photograph, faults_of_file
from lediflow.data.pixels import BAND_PIXELS, UnusableImageError, opaque_srgb

PILLOW_MODES = {"rgb": "RGB", "grey": "L"}
CHANNELS = {"rgb": 3, "grey": 1}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
}

Picture = UInt8[np.ndarray, "channels height width"]


def square_picture(content: bytes, *, size: int, mode: str) -> Image.Image:
    """Centre square of a photograph at size x size."""
    return centre_square(decoded_photograph(content, size), size=size, mode=mode)


def centre_square(photograph: Photograph, *, size: int, mode: str) -> Image.Image:
    """The largest square in the middle, at size x size."""
    if min(photograph.width, photograph.height) < size:
        raise UnusableImageError(f"too small: {photograph.width}x{photograph.height}, need {size}x{size}")
    width, height = photograph.image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    narrow = Image.new(PILLOW_MODES[mode], (size, side))
    rows = max(1, BAND_PIXELS // side)
    with faults_of_file():
        for row in range(0, side, rows):
            end = min(row + rows, side)
            band = opaque_srgb(photograph.image.crop((left, top + row, left + side, top + end)))
            band = band.convert(PILLOW_MODES[mode])
            narrow.paste(band.resize((size, end - row), Image.Resampling.LANCZOS), (0, row))
    return narrow.resize((size, size), Image.Resampling.LANCZOS)


def picture_bytes(picture: Image.Image, file_format: str) -> bytes:
    """The picture as the content of a file; png and webp keep every pixel."""
    pillow_name, options = FORMATS[file_format]
    buffer = io.BytesIO()
    picture.save(buffer, pillow_name, **options)
    return buffer.getvalue()


def picture_pixels(content: bytes | memoryview) -> Picture:
    """Pixels of a file that `picture_bytes` wrote."""
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
