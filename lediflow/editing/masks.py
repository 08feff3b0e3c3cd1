"""Masks: one level per pixel, 0 keeps it, 255 repaints it, levels between do so in part (M = level / 255 in eq. 7).

White is repainted. A file may be black and white in any mode (1 bit, grey, palette, RGB), or have an alpha channel:

- all pixels opaque: the brightness is the level;
- the visible pixels are in colour, as in a photograph with a hole: what is transparent is repainted;
- else, as painted on a transparent ground: brightness times alpha; if nothing white is visible, what is transparent.

JPEG changes levels near edges, so such a mask is taken as black or white, with a warning.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from lediflow.data.photograph import decoded_photograph
from lediflow.data.pixels import UnusableImageError, plain_mode
from lediflow.editing.photographs import read_content
from lediflow.errors import UserError

log = logging.getLogger(__name__)

Levels = UInt8[np.ndarray, "height width"]
Size = tuple[int, int]  # width, height
JPEG_SIGNATURE = b"\xff\xd8\xff"
FULL, HALF = 255, 128
FAINT = 8  # a mask whose brightest level is below was meant as 0 and 1, or holds numbers of classes
GREY_WITHIN = 16  # channels that differ by more are a colour


class Mask(NamedTuple):
    """The levels of a mask, and how they were found; `warning` is for the user, empty if there is nothing to say."""

    levels: Levels
    origin: str
    warning: str = ""

    @property
    def amount(self) -> Float[Tensor, "1 1 height width"]:
        """M of eq. 7, in [0, 1]."""
        return torch.from_numpy(self.levels.astype(np.float32) / FULL)[None, None]

    def record(self) -> dict[str, Any]:
        """For edit.json: how the mask was made, a hash of its levels, and the share of pixels that may change."""
        digest = hashlib.sha256(self.levels.tobytes()).hexdigest()
        return {"origin": self.origin, "sha256": digest, "repainted": float(self.is_repainted.mean())}

    @property
    def is_repainted(self) -> Bool[np.ndarray, "height width"]:
        """Where pixels change, in full or in part."""
        return self.levels > 0


def mask_of(
    size: Size,
    *,
    file: str | None = None,
    rectangle: Sequence[int] = (),
    polygon: Sequence[int] = (),
    blur: float = 0.0,
    side: int | None = None,
) -> Mask:
    """The mask for a picture of this size from a file, a rectangle or a polygon (as in InpaintConfig).

    With `side`: its central square, scaled to side x side as the picture is, and then blurred.
    UserError if the file is unusable or of another size, a shape lies outside, or nothing or everything is repainted.
    """
    if file is not None:
        mask, name = mask_from_file(file, size), f"mask={file}"
        check_visible(mask, name)
    elif rectangle:
        mask, name = mask_of_rectangle(rectangle, size), f"rectangle={list(rectangle)}"
    else:
        mask, name = mask_of_polygon(polygon, size), f"polygon={list(polygon)}"
    return finished(mask if side is None else centred_mask(mask, side), blur, name)


def centred_mask(mask: Mask, side: int) -> Mask:
    """The central square in side x side pixels, each with the highest level inside it: a thin line is not lost."""
    height, width = mask.levels.shape
    if (height, width) == (side, side):
        return mask
    square = min(height, width)
    left, top = (width - square) // 2, (height - square) // 2
    levels = mask.levels[top : top + square, left : left + square]
    # first and past-the-last row (or column) that a pixel of the result covers, also in part
    covered = [(place * square // side, -(-(place + 1) * square // side)) for place in range(side)]
    rows = np.stack([levels[first:last].max(axis=0) for first, last in covered])
    scaled = np.stack([rows[:, first:last].max(axis=1) for first, last in covered], axis=1)
    origin = f"{mask.origin}, the central square of {width} x {height} pixels"
    return mask._replace(levels=scaled, origin=origin)


class MaskProcessor:
    """What diffusers' pipelines call `mask_processor`."""

    @staticmethod
    def blur(image: Image.Image, blur_factor: float = 4.0) -> Image.Image:
        """A mask with a soft border, by a Gaussian of `blur_factor` pixels, as grey levels."""
        return Image.fromarray(levels_of(image)[0]).filter(ImageFilter.GaussianBlur(blur_factor))


def mask_from(
    image: Image.Image, blur: float = 0.0, side: int | None = None, *, is_jpeg: bool = False
) -> Mask:
    """The mask of a picture, as `mask_of` makes it of a file; UserError if it repaints nothing or everything."""
    mask = Mask(*levels_of(image))
    if is_jpeg:
        mask = without_grey(mask, "mask_image")
    check_visible(mask, "mask_image")
    return finished(mask if side is None else centred_mask(mask, side), blur, "mask_image")


def finished(mask: Mask, blur: float, name: str) -> Mask:
    """The mask, blurred on request; UserError if it repaints nothing or everything."""
    if blur:
        soft = MaskProcessor.blur(Image.fromarray(mask.levels), blur)
        mask = mask._replace(levels=np.asarray(soft), origin=f"{mask.origin}, blurred by {blur:g} pixels")
    if not mask.is_repainted.any():
        raise UserError(
            f"{name} repaints nothing ({mask.origin}); give a larger one inside the central square, or less blur"
        )
    if mask.is_repainted.all():
        raise UserError(
            f"{name} leaves no pixel as it is ({mask.origin}); keep some (in a file: paint them black), or make whole "
            "images: lediflow.sample, lediflow.edit vary"
        )
    return mask


def mask_from_file(file: str, size: Size) -> Mask:
    content = read_content(file, "mask")
    try:
        image = decoded_photograph(content).image
    except UnusableImageError as error:
        raise UserError(f"mask={file} is {error}; give a black and white picture, best as PNG") from error
    if image.size != size:
        raise UserError(
            f"mask={file} has {image.width} x {image.height} pixels, the image {size[0]} x {size[1]}; give a mask of "
            "the image's size, where white is repainted"
        )
    mask = Mask(*levels_of(image))
    return without_grey(mask, f"mask={file}") if content.startswith(JPEG_SIGNATURE) else mask


def without_grey(mask: Mask, name: str) -> Mask:
    """The mask of a JPEG, whose levels near edges are not those that were painted, as black or white; logs so."""
    warning = (
        f"{name} is a JPEG, which changes levels near edges: taken as black or white, at half brightness; save "
        "masks as PNG"
    )
    log.warning("%s", warning)
    levels = np.where(mask.levels >= HALF, FULL, 0).astype(np.uint8)
    return Mask(levels, f"{mask.origin} of a JPEG, black or white", warning)


def levels_of(image: Image.Image) -> tuple[Levels, str]:
    """The level of each pixel, and the rule that gave it (see the top of the file)."""
    plain = plain_mode(image)
    if not plain.has_transparency_data:
        return np.asarray(plain.convert("RGB").convert("L")), "brightness"
    pixels = np.asarray(plain.convert("RGBA")).astype(np.int64)
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if (alpha == FULL).all():
        return np.asarray(plain.convert("RGB").convert("L")), "brightness"
    visible = colours[alpha > 0]
    transparent = (FULL - alpha).astype(np.uint8), "transparency"
    if visible.size and (np.ptp(visible, axis=-1) > GREY_WITHIN).any():
        return transparent
    brightness = np.asarray(plain.convert("RGBA").convert("RGB").convert("L")).astype(np.int64)
    painted = np.rint(brightness * alpha / FULL).astype(np.uint8)
    return (painted, "brightness times alpha") if painted.any() else transparent


def mask_of_rectangle(rectangle: Sequence[int], size: Size) -> Mask:
    left, top, right, bottom = rectangle
    if not (left < right and top < bottom):
        raise UserError(
            f"rectangle={rectangle} has no pixels; give [left,top,right,bottom] with left < right and top < bottom"
        )
    if right > size[0] or bottom > size[1]:
        raise UserError(
            f"rectangle={rectangle} reaches beyond the image, which has {size[0]} x {size[1]} pixels"
        )
    shape = (left, top, right - 1, bottom - 1)
    return drawn(size, f"rectangle {rectangle}", lambda draw: draw.rectangle(shape, fill=FULL))


def mask_of_polygon(polygon: Sequence[int], size: Size) -> Mask:
    corners = [(float(x), float(y)) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
    mask = drawn(size, f"polygon {polygon}", lambda draw: draw.polygon(corners, fill=FULL, outline=FULL))
    if not mask.is_repainted.any():
        raise UserError(f"polygon={polygon} lies outside the image, which has {size[0]} x {size[1]} pixels")
    return mask


def drawn(size: Size, origin: str, draw_shape: Callable[[ImageDraw.ImageDraw], None]) -> Mask:
    """A mask drawn with Pillow on a black ground."""
    canvas = Image.new("L", size, 0)
    draw_shape(ImageDraw.Draw(canvas))
    return Mask(np.asarray(canvas), origin)


def check_visible(mask: Mask, name: str) -> None:
    """UserError for a picture without a bright pixel, which would repaint nothing that can be seen."""
    brightest = int(mask.levels.max(initial=0))
    if not brightest:
        raise UserError(f"{name} repaints nothing: no pixel is white; paint white what is to be repainted")
    if brightest < FAINT:
        raise UserError(
            f"{name} has no level above {brightest} of 255, where 255 is white and repaints; multiply its levels"
        )
