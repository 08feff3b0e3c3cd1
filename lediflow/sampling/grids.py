"""Labelled grids of images, and maps of sigma in colours, as 8-bit pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lediflow.sampling.pictures import picture_arrays

LABEL_WIDTH, GAP, SMALLEST = 150, 4, 96  # pixels, at least; smaller images are enlarged by whole factors
HEAD_HEIGHT = 24  # pixels of the labels of columns
SIGMA_LIMITS = (2.0**-7, 2.0)  # of the colours, the limits of the bins of `loss_by_sigma`
# matplotlib's magma at equal distances, from dark to bright: each is brighter than the one before
MAGMA = (
    (0, 0, 3), (28, 16, 70), (80, 18, 123), (130, 37, 129), (182, 54, 121),
    (230, 81, 98), (251, 136, 97), (254, 196, 136), (251, 252, 191),
)  # fmt: skip

Signals = Float[Tensor, "columns channels height width"]  # in [-1, 1]
Bytes = UInt8[np.ndarray, "columns height width channels"]


def labelled_grid(
    rows: Sequence[Signals | Bytes], labels: Sequence[str], columns: Sequence[str] = ()
) -> Image.Image:
    """A row for each setting, with its label on the left, a column for each sample number, with labels above if any.

    Images are signals in [-1, 1] or bytes, grey or RGB. Rows of smaller images are enlarged to the largest side.
    """
    arrays = [picture_arrays(row) if isinstance(row, Tensor) else row for row in rows]
    side = max(row.shape[1] for row in arrays)
    side *= max(1, -(-SMALLEST // side))
    cell, font = side + GAP, ImageFont.load_default(size=16)
    lines = [label.replace(", ", "\n") for label in labels]
    left = max(
        LABEL_WIDTH, *(math.ceil(font.getlength(line)) + 12 for label in lines for line in label.split("\n"))
    )
    top = HEAD_HEIGHT if columns else 0
    canvas = Image.new("RGB", (left + cell * len(arrays[0]), top + cell * len(arrays)), "white")
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(columns):
        draw.text((left + column * cell + side // 2, 3), label, fill="#1d1b19", font=font, anchor="ma")
    for place, (images, label) in enumerate(zip(arrays, lines, strict=True)):
        draw.multiline_text((6, top + place * cell + 6), label, fill="#1d1b19", font=font)
        for column, array in enumerate(images):
            picture = Image.fromarray(np.broadcast_to(array, (*array.shape[:2], 3)).copy())
            enlarged = picture.resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (left + column * cell, top + place * cell))
    return canvas


def sigma_colours(sigma: Float[np.ndarray, "columns height width"]) -> Bytes:
    """Standard deviations as colours, the brighter the larger, on a logarithmic scale with the limits SIGMA_LIMITS.

    The limits are fixed, so that maps of two milestones can be compared; values outside have the colour of the limit.
    """
    low, high = (math.log(limit) for limit in SIGMA_LIMITS)
    shares = (np.log(np.clip(sigma, *SIGMA_LIMITS)) - low) / (high - low)
    places = np.linspace(0, 1, len(MAGMA))
    channels = [np.interp(shares, places, values) for values in zip(*MAGMA, strict=True)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
