"""Colour profiles: what a picture's numbers mean, brought to sRGB.

Pictures without a profile are taken for sRGB. A profile is an ICC file inside the picture: Adobe RGB, Display P3, a
printer's CMYK, a grey with a gamma of its own. Colours are converted relative to the white of both, with black point
compensation: white stays white, black becomes black, and what sRGB can show is exact (for profiles made of primaries
and curves every other intent gives the same). A profile that changes nothing is sRGB under some name: pixels then
stay what they are, bit for bit. One that is broken, or of another kind of pixels than the picture's, is passed over.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's -> Pillow's mode
KEPT_TRANSFORMS = 16
SAME_LEVELS = 2  # of 255; roundings in the tables of common sRGB profiles change colours by no more
LATTICE = 9  # levels of each channel that are looked at

_SRGB = ImageCms.createProfile("sRGB")


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
