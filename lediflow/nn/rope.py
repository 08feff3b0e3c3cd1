"""Axial rotary position embedding: attention sees where tokens lie relative to each other.

Token centres lie in a box whose longer side is [-1, 1], so a coarser level's centres are the means of the
four it merged and every level can compute its own. A quarter of each head's channels pairs with the next
quarter and is rotated by position x frequency, the first half of these angles along the height, the second
along the width; the other half of the head is left alone. Frequencies run from pi to 10 pi, log-spaced, dealt
out over the heads.
Source: Su et al., arXiv:2104.09864; axial form: HDiT, arXiv:2401.11605, section 4.2.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.nn.shapes import Heads


class Rotation(NamedTuple):
    """Cosine and sine of every rotated pair's angle."""

    cos: Float[Tensor, "height width heads pairs"]
    sin: Float[Tensor, "height width heads pairs"]


def centres(length: int, reach: float, like: Tensor) -> Float[Tensor, " length"]:
    """Centres of `length` equal cells that tile [-reach, reach]."""
    index = torch.arange(length, device=like.device, dtype=like.dtype)
    return (index + 0.5) * (2 * reach / length) - reach


def frequencies(num_heads: int, head_dim: int, like: Tensor) -> Float[Tensor, "heads pairs_per_axis"]:
    """Angular frequencies: head n gets every num_heads-th of the log-spaced series, from its n-th on."""
    count = num_heads * head_dim // 8
    exponent = torch.arange(count, device=like.device, dtype=like.dtype) / count
    return (math.pi * 10.0**exponent).view(head_dim // 8, num_heads).T


def rotation(height: int, width: int, num_heads: int, head_dim: int, like: Tensor) -> Rotation:
    """Rotations of a height x width token grid, on the device of `like`, in float32 or wider."""
    like = like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))
    longer = max(height, width)
    omega = frequencies(num_heads, head_dim, like)
    along_height = centres(height, height / longer, like)[:, None, None, None] * omega
    along_width = centres(width, width / longer, like)[None, :, None, None] * omega
    angle = torch.cat(torch.broadcast_tensors(along_height, along_width), dim=-1)
    return Rotation(angle.cos(), angle.sin())


def rotate(x: Heads, by: Rotation) -> Heads:
    """Turn each pair of channels by its angle; the products are taken in float32 or wider."""
    pairs = by.cos.shape[-1]
    first, second, rest = x.split((pairs, pairs, x.shape[-1] - 2 * pairs), dim=-1)
    turned = torch.cat((first * by.cos - second * by.sin, second * by.cos + first * by.sin), dim=-1)
    return torch.cat((turned.to(x.dtype), rest), dim=-1)
