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
from PIL import Image, UnidentifiedImageError

from lediflow.data.metadata import PROFILE, Bare, orientation, tiff_tags, without_descriptions
from lediflow.data.pixels import BAND_PIXELS, UnusableImageError, eight_bits, opaque_srgb, sixteen_bit_planes

PIXEL_RULE = 2  # counts the changes that give a file other pixels; recorded in what is made of them
LARGE_PIXELS = 2**24  # of JPEGs that are decoded smaller
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ON_ITS_SIDE = (5, 6, 7, 8)  # orientations that exchange width and height
SEQUENCES = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")  # not MPO, whose second picture is a preview
PILLOW_MODES = {"rgb": "RGB", "grey": "L"}
CHANNELS = {"rgb": 3, "grey": 1}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
Picture = UInt8[np.ndarray, "channels height width"]


class Photograph(NamedTuple):
    """A decoded file, upright, 8 bits per channel in whatever colours."""

    image: Image.Image  # a large JPEG's is smaller than the photograph
    width: int
    height: int
    has_more: bool = False  # pictures, of which this is the first


def decoded_photograph(content: bytes, size: int | None = None) -> Photograph:
    """A file's picture, complete: UnusableImageError for a truncated one.

    With `size` large JPEGs may be decoded at a smaller scale, at twice this side or more.
    """
    with faults_of_file(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about oddities of files that can be decoded all the same
        try:
            return _decoded(Bare(content), size, is_whole=True)
        except UnusableImageError:
            raise
        except Exception:
            bare = without_descriptions(content)
            if bare is None:
                raise
            with suppress(Exception):  # the first reason is the one to be read
                return _decoded(bare, size)
            raise


def rgb_pixels(content: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """A file's picture at its full size: opaque, sRGB, upright. UnusableImageError says what is wrong with a file."""
    photograph = decoded_photograph(content)
    with faults_of_file():
        return np.asarray(opaque_srgb(photograph.image).convert("RGB"))


def described(content: bytes) -> tuple[str, int, int]:
    """Pillow's mode, width and height as a file's head has them, without decoding; raises what Pillow raises."""
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
    """Whether pictures follow a file's first, as in an animation; False for what cannot be opened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _has_more(Image.open(io.BytesIO(content)))
    except Exception:  # decoding says what is wrong with the file
        return False


@contextmanager
def faults_of_file() -> Iterator[None]:
    """Whatever Pillow raises about one file makes that file unusable, and ends nothing else."""
    try:
        yield
    except UnusableImageError:
        raise
    except UnidentifiedImageError:  # its own message holds a memory address
        raise UnusableImageError("unreadable: not an image that Pillow knows") from None
    except Exception as error:  # whatever broken bytes lead Pillow's decoders to, it is the file's fault
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
    """Whether pictures follow the first; asked before loading, as a look at a GIF's second frame moves on."""
    if image.format not in SEQUENCES:
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # of a second picture that is broken
        return True


def _orientation(image: Image.Image, file: Bare) -> int:
    if image.format == "TIFF":
        return 1  # Pillow has turned it while loading
    exif, xmp = image.info.get("exif", b"") or file.exif, image.info.get("xmp", b"")
    raw = image.info.get("Raw profile type exif", "")
    if not exif and isinstance(raw, str):  # as ImageMagick writes it into PNGs
        with suppress(ValueError):
            exif = bytes.fromhex("".join(raw.split("\n")[3:]))
    return orientation(exif, xmp if isinstance(xmp, bytes) else str(xmp).encode())


def _check_profile(image: Image.Image, content: bytes) -> None:
    """Pillow passes over a TIFF's tags behind one that claims to be larger than the file."""
    is_missing = image.format == "TIFF" and not image.info.get("icc_profile")
    if is_missing and any(tag.number == PROFILE for tag in tiff_tags(content)):
        raise OSError("its colour profile cannot be read")


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
