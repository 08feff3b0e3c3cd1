"""One photograph: bytes -> square picture of the asked size and mode -> bytes.

The picture is the centre square of the photograph, turned upright by its EXIF tag, resized once with Lanczos.
Transparency becomes white. Pictures are never enlarged: a small one is reported, as is an unreadable one.
"""

import io
import warnings
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

PILLOW_MODES = {"rgb": "RGB", "grey": "L"}
CHANNELS = {"rgb": 3, "grey": 1}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
}

Picture = UInt8[np.ndarray, "channels height width"]


class UnusableImageError(Exception):
    """Why a file cannot become a training picture."""


def square_picture(content: bytes, *, size: int, mode: str) -> Image.Image:
    """Centre square of a photograph at size x size."""
    return centre_square(decoded_photograph(content), size=size, mode=mode)


def decoded_photograph(content: bytes) -> Image.Image:
    """A file's picture, upright and complete: a truncated file is no photograph."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of files that can be decoded all the same
            image = Image.open(io.BytesIO(content))
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:  # its own message holds a memory address
        raise UnusableImageError("unreadable: not an image that Pillow knows") from None
    except Exception as error:  # whatever broken bytes lead Pillow's decoders to, it is the file's fault
        raise UnusableImageError(f"unreadable: {error}") from error


def centre_square(photograph: Image.Image, *, size: int, mode: str) -> Image.Image:
    """The largest square in the middle, at size x size."""
    width, height = photograph.size
    side = min(width, height)
    if side < size:
        raise UnusableImageError(f"too small: {width}x{height}, need {size}x{size}")
    left, top = (width - side) // 2, (height - side) // 2
    square = _eight_bits(photograph).crop((left, top, left + side, top + side))
    return square.convert(PILLOW_MODES[mode]).resize((size, size), Image.Resampling.LANCZOS)


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


def _eight_bits(image: Image.Image) -> Image.Image:
    """Opaque, with 8 bits per channel."""
    if image.mode.startswith("I"):  # 16 bits per pixel: Pillow would clip them to 8
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.mode == "F":
        raise UnusableImageError("unreadable: floating-point pixels have no common range; save 8 or 16 bits")
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
