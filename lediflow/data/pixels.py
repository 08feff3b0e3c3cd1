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

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's -> Pillow's mode
KEPT_TRANSFORMS = 16
SAME_LEVELS = 2  # of 255; roundings in the tables of common sRGB profiles change colours by no more
LATTICE = 9  # levels of each channel that are looked at

_SRGB = ImageCms.createProfile("sRGB")
BAND_PIXELS = 2**20
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
PLAIN = {  # modes that Pillow does not convert to every other
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


def in_srgb(image: Image.Image) -> Image.Image:
    """The image with its profile's colours in sRGB: RGB or RGBA; the image itself where there is nothing to do."""
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
    """The image in the mode that a profile of this space describes, with its transparency; None if it cannot be."""
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
    """Pillow's mode of the pixels that a profile describes; None if it cannot be used."""
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space
    except (OSError, TypeError, ValueError):
        return None
    return SPACES.get(found)


@lru_cache(KEPT_TRANSFORMS)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From pixels of a mode to RGB; None where the profile is sRGB's own or broken."""
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
    """A picture of colours from all over the space."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, LATTICE).round().astype(np.uint8)
    channels = Image.getmodebands(mode)
    colours = np.stack(np.meshgrid(*[levels] * channels, indexing="ij"), axis=-1)
    return Image.frombytes(mode, (colours.size // channels, 1), colours.tobytes())


def _difference(before: Image.Image, after: Image.Image) -> int:
    return int(np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max())


def _is_sound(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether white comes out light and black dark; damaged tables often lose that."""
    ends = bytes(4), b"\xff" * 4
    white, black = ends if mode == "CMYK" else ends[::-1]  # no ink is white
    pixels = (Image.frombytes(mode, (1, 1), end[: Image.getmodebands(mode)]) for end in (white, black))
    light, dark = (np.asarray(transform.apply(pixel)).min() for pixel in pixels)
    return bool(light >= 128 > dark)


class UnusableImageError(Exception):
    """Why a file cannot become a training picture."""


def opaque_srgb(image: Image.Image) -> Image.Image:
    """Pixels of 8 bits in sRGB with transparency on white; the image itself where it is that already."""
    if image.mode in ("I", "F"):
        raise UnusableImageError(UNKNOWN_RANGE.format("32-bit" if image.mode == "I" else "floating-point"))
    image = in_srgb(plain_mode(image))
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def plain_mode(image: Image.Image) -> Image.Image:
    """In one of the modes that convert to all others."""
    return image.convert(PLAIN[image.mode]) if image.mode in PLAIN else image


def eight_bits(image: Image.Image, content: bytes) -> Image.Image:
    """A loaded file's image with 8 bits per channel, its transparency as alpha where the file says it in 16 bits."""
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "F":
        raise UnusableImageError(UNKNOWN_RANGE.format("floating-point"))
    if SIGNED in tags.get(SAMPLE_FORMAT, ()):
        raise UnusableImageError(UNKNOWN_RANGE.format("signed"))
    if image.mode == "I" and image.format not in ("PPM", "PNG"):  # these two are scaled to 16 bits
        raise UnusableImageError(UNKNOWN_RANGE.format("32-bit"))
    if image.mode == "I" or image.mode in SIXTEEN_BITS:
        return _upper_bytes(image, tags)
    if image.format == "PNG" and "transparency" in image.info:
        return _png_transparency(image, content)
    return image


def sixteen_bit_planes(image: Image.Image) -> None:
    """Before loading: a TIFF's uncompressed planes of 16 bits would be taken for 8."""
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(PLANAR) != SEPARATE or set(tags.get(BITS, ())) != {16}:
        return
    order = ";16B" if tags.prefix == b"MM" else ";16L"
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(tile.args[0] + order, *tile.args[1:])) if tile.codec_name == "raw" else tile
        for tile in image.tile  # type: ignore[attr-defined]
    ]


def _upper_bytes(image: Image.Image, tags: Any) -> Image.Image:
    """Grey of 16 bits, or of 12, as grey of 8; one value may be transparent."""
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
    """A PNG's transparent colour in the numbers that Pillow gives its pixels."""
    depth, clear = content[24], image.info["transparency"]
    if image.mode == "RGB" and depth == 16:
        return _clear_of_sixteen_bits(image, content, clear)
    if image.mode == "L":
        image.info["transparency"] = (clear & 2**depth - 1) * 255 // (2**depth - 1)
    if image.mode == "RGB":
        image.info["transparency"] = tuple(channel & 255 for channel in clear)
    return image


def _clear_of_sixteen_bits(image: Image.Image, content: bytes, clear: tuple[int, ...]) -> Image.Image:
    """Colours of 16 bits are compared whole: Pillow gives upper bytes, and lower ones where another order is named."""
    lower = Image.open(io.BytesIO(content))
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # type: ignore[attr-defined]
    lower.load()
    values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(lower)
    is_clear = (values == np.array(clear)).all(axis=-1)
    del image.info["transparency"]
    image.putalpha(Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8)))
    return image


def _by_bands(image: Image.Image, mode: str, function: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """A function of pixels applied to bands of rows, so that little more than the image and the result is held."""
    width, height = image.size
    result = Image.new(mode, image.size)
    rows = max(1, BAND_PIXELS // width)
    for row in range(0, height, rows):
        result.paste(function(image.crop((0, row, width, min(row + rows, height)))), (0, row))
    result.info = image.info
    return result
