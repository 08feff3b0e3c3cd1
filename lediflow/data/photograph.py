"""An image file -> an upright image with 8 bits per channel -> a square picture of a given size and mode -> bytes.

Files that other programs wrote are decoded here alone. Nothing that a file says besides its pixels makes the pixels
unusable: a file that Pillow refuses is tried again without its metadata. Damaged or truncated pixels are refused. If a
file holds several images (GIF, APNG, WebP, TIFF), the first is taken.

The picture is the central square of the photograph, in sRGB, with transparency on white, resized once with Lanczos.
Pictures are never enlarged: one that is too small is reported, like one that is unreadable.

Only the decoded pixels of a photograph are held whole; large JPEGs are decoded at a half, a quarter or an eighth of
their side if that leaves at least twice the requested side. All further steps work on bands of rows. Lanczos resamples
rows and columns one after the other, so the result has the same bytes as without bands.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from lediflow.data.metadata import PROFILE, Bare, orientation, tiff_tags, without_descriptions
from lediflow.data.pixels import BAND_PIXELS, UnusableImageError, eight_bits, opaque_srgb, sixteen_bit_planes

# increased by every change that gives a file other pixels; recorded in everything made from them
PIXEL_RULE = 2
LARGE_PIXELS = 2**24  # JPEGs with more pixels are decoded at a reduced scale
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_ITS_SIDE = (5, 6, 7, 8)  # orientations that swap width and height
SEQUENCES = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")  # not MPO, whose second picture is a preview
# grey TIFFs whose levels are multiplied by their alpha, which Pillow reads by itself from version 13 on
for _order in (b"II", b"MM"):
    TiffImagePlugin.OPEN_INFO.setdefault((_order, 1, (1,), 1, (8, 8), (1,)), ("La", "La"))
PILLOW_MODES = {"rgb": "RGB", "grey": "L"}
CHANNELS = {"rgb": 3, "grey": 1}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
}


class Photograph(NamedTuple):
    """A decoded file: upright, 8 bits per channel, in the colour mode of the file."""

    image: Image.Image  # smaller than the photograph if that is a large JPEG
    width: int
    height: int
    has_more: bool = False  # the file holds further images


def decoded_photograph(content: bytes, size: int | None = None) -> Photograph:
    """Decode a file's first image; UnusableImageError if it is damaged, truncated, or not an image.

    With `size`, large JPEGs may be decoded at a reduced scale of at least twice this side.
    """
    with faults_of_file(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oddities of files that can be decoded nevertheless
        try:
            return _decoded(Bare(content), size, is_whole=True)
        except UnusableImageError:
            raise
        except Exception:
            bare = without_descriptions(content)
            if bare is None:
                raise
            with suppress(Exception):  # the first error is the one to report
                return _decoded(bare, size)
            raise


def rgb_pixels(content: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """A file's image at full size: opaque, sRGB, upright. UnusableImageError if the file is unusable."""
    photograph = decoded_photograph(content)
    with faults_of_file():
        return np.asarray(opaque_srgb(photograph.image).convert("RGB"))


def picture_header(content: bytes) -> tuple[str, int, int]:
    """Pillow's mode, width and height from a file's header, without decoding; raises what Pillow raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(content))
        except Exception:
            bare = without_descriptions(content)
            if bare is None:
                raise
            image = Image.open(io.BytesIO(bare.content))
        return (image.mode, *image.size)


def holds_several(content: bytes) -> bool:
    """Whether a file holds more than one image, as an animation does; False if it cannot be opened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _has_more(Image.open(io.BytesIO(content)))
    except Exception:  # decoding reports what is wrong with the file
        return False


@contextmanager
def faults_of_file() -> Iterator[None]:
    """Turn any error that Pillow raises about a file into an UnusableImageError."""
    try:
        yield
    except UnusableImageError:
        raise
    except UnidentifiedImageError:  # its own message holds a memory address
        raise UnusableImageError("unreadable: not an image that Pillow knows") from None
    except Exception as error:  # damaged bytes make Pillow's decoders raise errors of any kind
        raise UnusableImageError(f"unreadable: {error}") from error


def _decoded(file: Bare, size: int | None, is_whole: bool = False) -> Photograph:
    image = Image.open(io.BytesIO(file.content))
    width, height = image.size
    has_more = _has_more(image)
    if size is not None and width * height > LARGE_PIXELS:
        image.draft(None, (2 * size, 2 * size))
    sixteen_bit_planes(image)
    image.load()
    if file.profile is not None:
        image.info["icc_profile"] = file.profile
    if is_whole:
        _check_profile(image, file.content)
    turn = _orientation(image, file)
    upright = eight_bits(image, file.content)
    if turn in TURNS:
        upright = upright.transpose(TURNS[turn])
    if turn in ON_ITS_SIDE:
        width, height = height, width
    return Photograph(upright, width, height, has_more)


def _has_more(image: Image.Image) -> bool:
    """Whether further images follow the first. Call before loading: the check advances a GIF to its second frame."""
    if image.format not in SEQUENCES:
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the second image is damaged
        return True


def _orientation(image: Image.Image, file: Bare) -> int:
    if image.format == "TIFF":
        return 1  # Pillow applied the orientation while loading
    exif, xmp = image.info.get("exif", b"") or file.exif, image.info.get("xmp", b"")
    raw = image.info.get("Raw profile type exif", "")
    if not exif and isinstance(raw, str):  # ImageMagick writes EXIF into PNGs as text
        with suppress(ValueError):
            exif = bytes.fromhex("".join(raw.split("\n")[3:]))
    return orientation(exif, xmp if isinstance(xmp, bytes) else str(xmp).encode())


def _check_profile(image: Image.Image, content: bytes) -> None:
    """OSError if a TIFF's colour profile was skipped: Pillow drops tags after one that claims to exceed the file."""
    is_missing = image.format == "TIFF" and not image.info.get("icc_profile")
    if is_missing and any(tag.number == PROFILE for tag in tiff_tags(content)):
        raise OSError("its colour profile cannot be read")


def centre_square(photograph: Photograph, *, size: int, mode: str) -> Image.Image:
    """The largest central square of a photograph, resized to size x size. UnusableImageError if it is too small."""
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
    """The picture encoded as a file; png and webp are lossless."""
    pillow_name, options = FORMATS[file_format]
    buffer = io.BytesIO()
    picture.save(buffer, pillow_name, **options)
    return buffer.getvalue()
