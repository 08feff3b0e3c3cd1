"""One photograph: bytes -> square picture of the asked size and mode -> bytes.

The picture is the centre square of the photograph, turned upright by its EXIF tag, resized once with Lanczos.
Transparency becomes white. Pictures are never enlarged: a small one is reported, as is an unreadable one.

Of a photograph only the decoded pixels are held whole; large JPEGs are decoded at a half, a quarter or an eighth of
their side where that leaves at least twice the asked one. Everything behind happens in bands of rows. Lanczos treats
rows and columns one after the other, so the picture is the same, byte for byte, as without bands.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

PILLOW_MODES = {"rgb": "RGB", "grey": "L"}
CHANNELS = {"rgb": 3, "grey": 1}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
LARGE_PIXELS = 2**24  # of JPEGs that are decoded smaller
BAND_PIXELS = 2**20
ON_ITS_SIDE = (5, 6, 7, 8)  # values of the EXIF orientation that exchange width and height

Picture = UInt8[np.ndarray, "channels height width"]


class UnusableImageError(Exception):
    """Why a file cannot become a training picture."""


class Photograph(NamedTuple):
    """A decoded file, upright."""

    image: Image.Image  # a large JPEG's is smaller than the photograph
    width: int
    height: int


def square_picture(content: bytes, *, size: int, mode: str) -> Image.Image:
    """Centre square of a photograph at size x size."""
    return centre_square(decoded_photograph(content, size), size=size, mode=mode)


def decoded_photograph(content: bytes, size: int) -> Photograph:
    """A file's picture, complete, for squares of this size: a truncated file is no photograph."""
    with _faults_of_file(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about oddities of files that can be decoded all the same
        image = Image.open(io.BytesIO(content))
        width, height = image.size
        if width * height > LARGE_PIXELS:
            image.draft(None, (2 * size, 2 * size))
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation) in ON_ITS_SIDE:
            width, height = height, width
        ImageOps.exif_transpose(image, in_place=True)
        return Photograph(image, width, height)


def centre_square(photograph: Photograph, *, size: int, mode: str) -> Image.Image:
    """The largest square in the middle, at size x size."""
    if min(photograph.width, photograph.height) < size:
        raise UnusableImageError(f"too small: {photograph.width}x{photograph.height}, need {size}x{size}")
    width, height = photograph.image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    narrow = Image.new(PILLOW_MODES[mode], (size, side))
    rows = max(1, BAND_PIXELS // side)
    with _faults_of_file():
        for row in range(0, side, rows):
            end = min(row + rows, side)
            band = eight_bits(photograph.image.crop((left, top + row, left + side, top + end)))
            band = band.convert(PILLOW_MODES[mode])
            narrow.paste(band.resize((size, end - row), Image.Resampling.LANCZOS), (0, row))
    return narrow.resize((size, size), Image.Resampling.LANCZOS)


@contextmanager
def _faults_of_file() -> Iterator[None]:
    """Whatever Pillow raises about one file makes that file unusable, and ends nothing else."""
    try:
        yield
    except UnusableImageError:
        raise
    except UnidentifiedImageError:  # its own message holds a memory address
        raise UnusableImageError("unreadable: not an image that Pillow knows") from None
    except Exception as error:  # whatever broken bytes lead Pillow's decoders to, it is the file's fault
        raise UnusableImageError(f"unreadable: {error}") from error


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


def eight_bits(image: Image.Image) -> Image.Image:
    """Opaque, with 8 bits per channel."""
    if image.mode.startswith("I"):  # 16 bits per pixel: Pillow would clip them to 8
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise UnusableImageError("unreadable: floating-point pixels have no common range; save 8 or 16 bits")
    if image.mode == "LAB":  # Pillow has no way from here to grey
        return image.convert("RGB")
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
