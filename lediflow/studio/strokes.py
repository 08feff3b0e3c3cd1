"""Masks from what was painted in the browser's image editor, in the pixels of the models.

The editor shows the photograph enlarged by a whole factor, so that single pixels can be painted. A pixel is repainted
if any part of it was painted, however translucent: levels are 0 or 255, also where strokes cross. The sizes that come
back are compared with those that were sent, because editors have returned rescaled, cropped or no layers at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lediflow.editing.masks import FULL, Mask, finished
from lediflow.errors import UserError

SHOWN_SIDE = 512  # pixels; photographs are enlarged to at most this
INSTEAD = "reload the page and paint again, or upload a mask as a file instead"


class NothingGivenError(UserError):
    """A photograph or strokes are missing, which is no mistake before a user comes to them."""


Levels = UInt8[np.ndarray, "height width"]


def enlargement(size: int) -> int:
    """The factor by which pictures of the models' size are enlarged in the editor."""
    return max(1, SHOWN_SIDE // size)


def painted_mask(value: Mapping[str, Any] | None, size: int, blur: float = 0.0) -> Mask:
    """The mask of an editor's value: `background`, `layers` and `composite` as RGBA bytes.

    UserError if nothing or everything is painted, and if what came back does not fit what was sent.
    """
    if value is None or value.get("background") is None:
        raise NothingGivenError("the editor holds no photograph to paint on; upload one first")
    side = size * enlargement(size)
    background, layers = np.asarray(value["background"]), [np.asarray(layer) for layer in value["layers"]]
    for name, picture in [("picture", background), *(("mask", layer) for layer in layers)]:
        if picture.shape != (side, side, 4):
            raise UserError(
                f"the editor returned a {name} of {picture.shape[1]} x {picture.shape[0]} pixels for a picture of "
                f"{side} x {side}, so it is not known which pixels were painted; {INSTEAD}"
            )
    if not layers and is_changed(background, value.get("composite")):
        raise UserError(f"the editor shows strokes but returned no mask of them; {INSTEAD}")
    if not any(layer[..., 3].any() for layer in layers):
        raise NothingGivenError("nothing is painted; paint over what is to be repainted, or upload a mask")
    levels = np.zeros((size, size), np.uint8)
    for layer in layers:
        levels = np.maximum(levels, touched(layer[..., 3], enlargement(size)))
    return finished(Mask(levels, "painted"), blur, "the mask")


def touched(alpha: Levels, factor: int) -> Levels:
    """255 for each pixel of the models of which any part has a colour, else 0."""
    size = len(alpha) // factor
    blocks = alpha.reshape(size, factor, size, factor)
    return np.where(blocks.max(axis=(1, 3)) > 0, FULL, 0).astype(np.uint8)


def is_changed(background: np.ndarray, composite: Any) -> bool:
    """Whether the picture with strokes differs from the one without."""
    return composite is not None and not np.array_equal(background, np.asarray(composite))
