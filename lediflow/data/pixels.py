"""Pixels of any kind -> 8 bits per channel, opaque, in sRGB. Preparing, streaming and evaluating share this.

16-bit values are reduced to their upper byte, as Pillow does for colour images, so a picture in grey or in colour, in 8
bits or in 16 (times 257 or times 256), gives the same result. Transparent pixels are composited on white. Values whose
range the file does not state (floating point, 32 bits, signed) are refused.

Pictures without a colour profile are assumed to be sRGB. A profile is an ICC file inside the picture: Adobe RGB,
Display P3, a printer's CMYK, grey with a gamma of its own. Conversion is relative colorimetric with black point
compensation: white stays white, black becomes black, and colours inside sRGB are exact (for profiles made of primaries
and curves, every other intent gives the same). A profile that changes nothing is sRGB under another name, and pixels
keep their bits. A profile that is damaged, or describes another kind of pixels than the picture's, is ignored.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile -> Pillow's mode
KEPT_TRANSFORMS = 16
SAME_LEVELS = 2  # of 255; rounding in the tables of common sRGB profiles changes colours by no more
LATTICE = 9  # levels per channel of the colours that are compared

_SRGB = ImageCms.createProfile("sRGB")
BAND_PIXELS = 2**20
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
# modes that Pillow cannot convert to every other -> the mode to convert them to first
PLAIN = {
    "La": "LA",
    "RGBa": "RGBA",
    "PA": "RGBA",
    "RGBX": "RGB",
    "LAB": "RGB",
    "HSV": "RGB",
    "YCbCr": "RGB",
}
BITS, WHITE_IS_ZERO, SIGNED = ExifTags.Base.BitsPerSample, 0, 2  # tags and values of TIFF
SAMPLE_FORMAT, PLANAR, SEPARATE = 339, ExifTags.Base.PlanarConfiguration, 2
UNKNOWN_RANGE = "unreadable: {} pixels have no common range; save 8 or 16 bits without a sign"


class UnusableImageError(Exception):
    """A file cannot become a training picture; the message says why."""


def opaque_srgb(image: Image.Image) -> Image.Image:
    """Convert 8-bit pixels to sRGB, composited on white; the image itself if there is nothing to do."""
    if image.mode in ("I", "F"):
        raise UnusableImageError(UNKNOWN_RANGE.format("32-bit" if image.mode == "I" else "floating-point"))
    image = in_srgb(plain_mode(image))
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def plain_mode(image: Image.Image) -> Image.Image:
    """Convert to a mode that Pillow converts to all others."""
    return image.convert(PLAIN[image.mode]) if image.mode in PLAIN else image


def eight_bits(image: Image.Image, content: bytes) -> Image.Image:
    """Reduce a loaded image to 8 bits per channel; a transparent colour given in 16 bits becomes an alpha channel."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "F":
        raise UnusableImageError(UNKNOWN_RANGE.format("floating-point"))
    if SIGNED in tags.get(SAMPLE_FORMAT, ()):
        raise UnusableImageError(UNKNOWN_RANGE.format("signed"))
    if image.mode == "I" and image.format not in ("PPM", "PNG"):  # Pillow scales these two to 16 bits
        raise UnusableImageError(UNKNOWN_RANGE.format("32-bit"))
    if image.mode == "I" or image.mode in SIXTEEN_BITS:
        return _upper_bytes(image, tags)
    if image.format == "PNG" and "transparency" in image.info:
        return _png_transparency(image, content)
    return image


def sixteen_bit_planes(image: Image.Image) -> None:
    """Correct a TIFF with uncompressed 16-bit planes, which Pillow would decode as 8-bit. Call before loading."""
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(PLANAR) != SEPARATE or set(tags.get(BITS, ())) != {16}:
        return
    order = ";16B" if tags.prefix == b"MM" else ";16L"
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(tile.args[0] + order, *tile.args[1:])) if tile.codec_name == "raw" else tile
        for tile in image.tile  # type: ignore[attr-defined]
    ]


def _upper_bytes(image: Image.Image, tags: Any) -> Image.Image:
    """Reduce 16-bit (or 12-bit) grey to 8 bits; one value may be transparent."""
    bits = tags.get(BITS, (16,))[0]
    clear = image.info.pop("transparency", None)
    is_negative = tags.get(ExifTags.Base.PhotometricInterpretation) == WHITE_IS_ZERO

    def grey(band: Image.Image) -> Image.Image:
        values = np.asarray(band).astype(np.uint16)
        levels = (values >> (bits - 8)).astype(np.uint8)
        pixels = Image.fromarray(255 - levels if is_negative else levels)
        if clear is not None:
            pixels.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        return pixels

    return _by_bands(image, "L" if clear is None else "LA", grey)


def _png_transparency(image: Image.Image, content: bytes) -> Image.Image:
    """Express a PNG's transparent colour in the values that Pillow decodes its pixels to."""
    depth, clear = content[24], image.info["transparency"]
    if image.mode == "RGB" and depth == 16:
        return _clear_of_sixteen_bits(image, content, clear)
    if image.mode == "L":
        image.info["transparency"] = (clear & 2**depth - 1) * 255 // (2**depth - 1)
    if image.mode == "RGB":
        image.info["transparency"] = tuple(channel & 255 for channel in clear)
    return image


def _clear_of_sixteen_bits(image: Image.Image, content: bytes, clear: tuple[int, ...]) -> Image.Image:
    """Make a 16-bit colour transparent, comparing all 16 bits.

    Pillow decodes the upper bytes, and the lower bytes if the other byte order is requested.
    """
    lower = Image.open(io.BytesIO(content))
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # type: ignore[attr-defined]
    lower.load()
    values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)
    is_clear = (values == np.array(clear)).all(axis=-1)
    del image.info["transparency"]
    image.putalpha(Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8)))
    return image


def _by_bands(image: Image.Image, mode: str, function: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Apply a pixelwise function to bands of rows, so that memory holds little more than the image and the result."""
    width, height = image.size
    result = Image.new(mode, image.size)
    rows = max(1, BAND_PIXELS // width)
    for row in range(0, height, rows):
        result.paste(function(image.crop((0, row, width, min(row + rows, height)))), (0, row))
    result.info = image.info
    return result


def in_srgb(image: Image.Image) -> Image.Image:
    """Convert an image with a colour profile to sRGB (RGB or RGBA); the image itself if there is nothing to do."""
    profile = image.info.get("icc_profile")
    space = profile_space(profile) if profile else None
    pixels = _as_described(image, space) if space else None
    if space is None or pixels is None:
        return image
    transform = srgb_transform(profile, space)
    if transform is None:
        return image
    return _transformed(pixels, transform)


def _as_described(image: Image.Image, space: str) -> Image.Image | None:
    """The image in the mode that a profile of this space describes, keeping transparency; None if they do not match."""
    is_clear, is_grey = image.has_transparency_data, image.mode in ("1", "L", "LA")
    if space == "CMYK" or image.mode == "CMYK":
        return image if space == image.mode else None
    if space == "L":
        return image.convert("LA" if is_clear else "L") if is_grey else None
    if image.mode in ("LAB", "HSV"):
        return None
    return image.convert("RGBA" if is_clear else "RGB")


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return transform.apply(image)
    *colours, alpha = image.split()
    opaque = transform.apply(colours[0] if len(colours) == 1 else Image.merge("RGB", colours))
    opaque.putalpha(alpha)
    return opaque


@lru_cache(KEPT_TRANSFORMS)
def profile_space(profile: bytes) -> str | None:
    """Pillow's mode of the pixels that a profile describes; None if the profile cannot be used."""
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space
    except (OSError, TypeError, ValueError):
        return None
    return SPACES.get(found)


@lru_cache(KEPT_TRANSFORMS)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion from a profile's colours to sRGB; None if the profile equals sRGB or is damaged."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _SRGB,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        before = _probe(mode)
        after = transform.apply(before)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    if not _is_sound(transform, mode):
        return None
    if mode != "CMYK" and _difference(before.convert("RGB"), after) <= SAME_LEVELS:
        return None
    return transform


def _probe(mode: str) -> Image.Image:
    """An image of colours that cover the space."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, LATTICE).round().astype(np.uint8)
    channels = Image.getmodebands(mode)
    colours = np.stack(np.meshgrid(*[levels] * channels, indexing="ij"), axis=-1)
    return Image.frombytes(mode, (colours.size // channels, 1), colours.tobytes())


def _difference(before: Image.Image, after: Image.Image) -> int:
    return int(np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max())


def _is_sound(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether white becomes light and black becomes dark, which damaged tables often violate."""
    ends = bytes(4), b"\xff" * 4
    white, black = ends if mode == "CMYK" else ends[::-1]  # no ink is white
    pixels = (Image.frombytes(mode, (1, 1), end[: Image.getmodebands(mode)]) for end in (white, black))
    light, dark = (np.asarray(transform.apply(pixel)).min() for pixel in pixels)
    return bool(light >= 128 > dark)
