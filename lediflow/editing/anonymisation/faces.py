"""Faces in a photograph: the pixels that are replaced, and the square around them that the models see.

The square has its own size in the photograph and is scaled to the models'. Where it reaches beyond the photograph, the
pixels at the border are repeated: they are context for the models, and nothing of them is pasted back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate

from lediflow.editing.masks import FULL, Levels

Pixels = UInt8[np.ndarray, "height width channels"]
Box = tuple[float, float, float, float]  # left, top, right, bottom
SOFT = 0.08  # width of an ellipse's border, outside of it, as a share of its radius
TOUCHING = np.ones((3, 3), dtype=int)  # pixels that touch at a corner belong to one region


class Square(NamedTuple):
    """A part of a photograph, in pixels; it may reach beyond the photograph."""

    left: int
    top: int
    side: int
    turns: int = 0  # quarter turns counter-clockwise that the models see it with, so that the face is upright


class Face(NamedTuple):
    """What is replaced: 255 wholly, levels between in part, as in masks of inpainting."""

    levels: Levels  # of the photograph's size
    square: Square
    is_cut: bool = False  # the face reaches beyond the photograph

    @property
    def pixels(self) -> int:
        """The number of pixels that are replaced."""
        return int((self.levels > 0).sum())

    def record(self, size: int) -> dict[str, Any]:
        """For edit.json: the side of the square, whether it is small (enlarged for the models), turned or cut, and the
        share of the photograph that is replaced."""
        return {
            "square": self.square.side,
            "small": self.square.side < size,
            "turned": self.square.turns != 0,
            "cut": self.is_cut,
            "replaced": float((self.levels > 0).mean()),
        }


def faces_of_mask(levels: Levels, size: int, framing: float) -> list[Face]:
    """A face for each connected region of a mask, from left to right."""
    from scipy import ndimage

    regions, count = ndimage.label(levels > 0, structure=TOUCHING)
    faces = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
        own = np.where(regions == number, levels, 0).astype(np.uint8)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        square = square_around(
            box, framing * max(columns.stop - columns.start, rows.stop - rows.start), levels, size
        )
        faces.append((columns.start, rows.start, Face(own, square)))
    assert len(faces) == count
    return [face for _, _, face in sorted(faces, key=lambda found: found[:2])]


def face_of_box(
    box: Box, turns: int, shape: tuple[int, int], size: int, framing: float, margin: float
) -> Face | None:
    """A face for a detected box: an ellipse `margin` times as wide and high, with a soft border inside its square.

    None if no pixel of the photograph (height, width) is in it.
    """
    height, width = shape
    left, top, right, bottom = box
    rows, columns = np.ogrid[:height, :width]
    # distance from the centre, 1 on the ellipse
    distance = np.hypot(
        (columns + 0.5 - (left + right) / 2) / (margin * (right - left) / 2),
        (rows + 0.5 - (top + bottom) / 2) / (margin * (bottom - top) / 2),
    )
    levels = np.rint(FULL * np.clip((1 + SOFT - distance) / SOFT, 0, 1)).astype(np.uint8)
    if not levels.any():
        return None
    found_rows, found_columns = (np.flatnonzero(levels.any(axis=axis)) for axis in (1, 0))
    replaced = (found_columns[0], found_rows[0], found_columns[-1] + 1, found_rows[-1] + 1)
    side = framing * max(right - left, bottom - top)
    square = square_around(tuple(map(int, replaced)), side, levels, size)
    is_cut = left < 0 or top < 0 or right > width or bottom > height
    return Face(levels, square._replace(turns=turns), is_cut)


def square_around(box: tuple[int, ...], side: float, levels: Levels, size: int) -> Square:
    """The square around the centre of a box (left, top, right, bottom), of a side, larger if the box is.

    It is moved into the photograph where it fits. A photograph of the models' size is seen whole: it is framed already
    as the models know faces.
    """
    height, width = levels.shape
    if (width, height) == (size, size):
        return Square(0, 0, size)
    left, top, right, bottom = box
    side = max(round(side), right - left, bottom - top)
    corner = [round((low + high - side) / 2) for low, high in ((left, right), (top, bottom))]
    inside = [
        min(max(start, 0), length - side) if side <= length else start
        for start, length in zip(corner, (width, height), strict=True)
    ]
    return Square(inside[0], inside[1], side)


def seen(pixels: Pixels, square: Square, size: int) -> UInt8[Tensor, "channels size size"]:
    """The square's pixels, scaled to the models' size."""
    return scaled(padded(pixels, square, "edge"), size)


def seen_without(
    pixels: Pixels, levels: Levels, square: Square, size: int
) -> tuple[UInt8[Tensor, "channels size size"], Float[Tensor, "1 1 size size"]]:
    """What the models may know of a square, and M: 1 where a pixel of `levels` above 0 has a share, else 0.

    Hidden pixels take the value of the nearest one that is not: scaling mixes neighbours, so they must be gone before.
    """
    part, is_hidden = padded(pixels, square, "edge"), padded(levels, square, "constant") > 0
    covered = torch.from_numpy(is_hidden.astype(np.float32))[None, None]
    if square.side >= size:
        amount = adaptive_max_pool2d(covered, size)
    else:
        amount = (interpolate(covered, size=(size, size), mode="bilinear") > 0).float()
    return scaled(filled_from_nearest(part, is_hidden), size), amount


def filled_from_nearest(part: Pixels, is_hidden: Bool[np.ndarray, "height width"]) -> Pixels:
    """Hidden pixels replaced by the nearest known ones; black if none is known."""
    from scipy import ndimage

    if is_hidden.all():
        return np.zeros_like(part)
    nearest = ndimage.distance_transform_edt(is_hidden, return_distances=False, return_indices=True)
    return part[tuple(nearest)]


def scaled(part: Pixels, size: int) -> UInt8[Tensor, "channels size size"]:
    """A square of pixels in the models' size."""
    return torch.from_numpy(np.stack([resized(part[..., number], size) for number in range(part.shape[-1])]))


def pasted(pixels: Pixels, face: Face, made: UInt8[Tensor, "channels size size"]) -> Pixels:
    """The photograph with new pixels where the face's mask is above 0; the bytes of all others are those before."""
    left, top, side, turns = face.square
    height, width = pixels.shape[:2]
    new = np.rot90(np.stack([resized(channel.numpy(), side) for channel in made], axis=-1), -turns)
    rows, columns = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    here = new[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    share = face.levels[rows, columns, None].astype(np.float32) / FULL
    old = pixels[rows, columns]
    mixed = np.rint(old + (here.astype(np.float32) - old) * share).astype(np.uint8)
    result = pixels.copy()
    result[rows, columns] = np.where(share > 0, mixed, old)
    return result


def padded(array: np.ndarray, square: Square, mode: Any) -> np.ndarray:
    """The square's part of an array (height x width, and channels), continued beyond the borders by np.pad's `mode`,
    and turned."""
    height, width = array.shape[:2]
    left, top, side, turns = square
    before_and_after = [
        (max(-start, 0), max(start + side - length, 0)) for start, length in ((top, height), (left, width))
    ]
    rest = [(0, 0)] * (array.ndim - 2)
    rows = slice(max(top, 0), max(min(top + side, height), 0))
    columns = slice(max(left, 0), max(min(left + side, width), 0))
    return np.rot90(np.pad(array[rows, columns], before_and_after + rest, mode=mode), turns)


def resized(channel: UInt8[np.ndarray, "rows columns"], side: int) -> UInt8[np.ndarray, "side side"]:
    """A square channel, scaled by Lanczos; itself if it has the size already."""
    if channel.shape == (side, side):
        return np.ascontiguousarray(channel)
    return np.asarray(Image.fromarray(channel).resize((side, side), Image.Resampling.LANCZOS))
