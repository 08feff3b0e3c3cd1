"""How visible the border of a mask is in a picture: the jump of grey levels across it, against that beside it.

    seam = mean |difference| of neighbours across the border / mean |difference| of neighbours on one side, near it

Neighbours are pixels that share an edge. "Near" is within REACH pixels of the border. 1: the border is like any other
place; above: it shows; the photograph's own value at the same place, which is not always 1, is the one to compare with.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import max_pool2d

REACH = 4  # pixels

Bytes = UInt8[Tensor, "batch channels height width"]


def seams(pixels: Bytes, amount: Float[Tensor, "1 1 height width"]) -> list[float | None]:
    """The seam of each picture, None if it is flat beside the border; pixels change where the amount is above 0."""
    levels, inside = pixels.double(), amount.to(pixels.device)[0, 0] > 0
    across, beside = torch.zeros(2, 2, len(pixels), dtype=torch.float64, device=pixels.device)
    near = near_border(inside)
    for axis in (-1, -2):
        jump = levels.diff(dim=axis).abs().mean(dim=1)
        one, two = neighbours(inside, axis)
        close = torch.logical_and(*neighbours(near, axis))
        for total, pairs in ((across, one ^ two), (beside, ~(one ^ two) & close)):
            total[0] += (jump * pairs).sum(dim=(1, 2))
            total[1] += pairs.sum()
    border, sides = (total[0] / total[1] for total in (across, beside))
    return [float(b / s) if s > 0 else None for b, s in zip(border, sides, strict=True)]


def near_border(inside: Bool[Tensor, "height width"]) -> Bool[Tensor, "height width"]:
    """Pixels within REACH of one on the other side of the border."""
    sides = torch.stack([inside, ~inside]).double()[:, None]
    reached = max_pool2d(sides, 2 * REACH + 1, stride=1, padding=REACH)
    return (reached > 0).all(dim=0)[0]


def neighbours(
    values: Bool[Tensor, "height width"], axis: int
) -> tuple[Bool[Tensor, "rows columns"], Bool[Tensor, "rows columns"]]:
    """Both members of each pair of neighbours along an axis."""
    length = values.shape[axis]
    return values.narrow(axis, 0, length - 1), values.narrow(axis, 1, length - 1)
