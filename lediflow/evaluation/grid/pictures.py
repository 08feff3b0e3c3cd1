"""Images of every setting at fixed noise, in one picture: a row for each setting, a column for each sample number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lediflow.sampling.pictures import picture_arrays

LABEL_WIDTH, GAP, SMALLEST = 150, 4, 96  # pixels; images are enlarged by whole factors to be seen


def labelled_grid(
    rows: Sequence[Float[Tensor, "columns channels height width"]], labels: Sequence[str]
) -> Image.Image:
    """Images in [-1, 1] with the row's label at its left."""
    side = rows[0].shape[-1]
    factor = max(1, -(-SMALLEST // side))
    cell = side * factor + GAP
    canvas = Image.new("RGB", (LABEL_WIDTH + cell * len(rows[0]), cell * len(rows)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for place, (images, label) in enumerate(zip(rows, labels, strict=True)):
        draw.multiline_text((6, place * cell + 6), label.replace(", ", "\n"), fill="#1d1b19", font=font)
        for column, array in enumerate(picture_arrays(images)):
            picture = Image.fromarray(np.broadcast_to(array, (*array.shape[:2], 3)).copy())
            enlarged = picture.resize((side * factor, side * factor), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (LABEL_WIDTH + column * cell, place * cell))
    return canvas
