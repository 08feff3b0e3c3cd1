"""Axial rotary position embedding: logits depend on the relative positions of tokens.

Token centres are in a box whose longer side is [-1, 1]. A coarser level's centres are the means of those it
merged; every level computes its own in the same steps as the reference, so that rounding is equal.
The first quarter of each head's channels is paired with the second quarter, and each pair is rotated by
position x frequency: the first half of the pairs along the height, the second along the width. The other half of
the channels is unchanged. Frequencies run from pi to 10 pi, log-spaced, distributed over the heads. Angles are
float32 in a model of any dtype, as in the reference.
Source: Su et al., arXiv:2104.09864; axial form: HDiT, arXiv:2401.11605.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float32
from torch import Tensor

from lediflow.nn.cached_tensors import ordinary_tensors
from lediflow.nn.compiler import constant_in_graphs
from lediflow.nn.shapes import Heads


class Rotation(NamedTuple):
    """Cosine and sine of the angle of every pair, "height width heads pairs"."""

    cos: Tensor
    sin: Tensor


def centres(length: int, reach: float, device: torch.device) -> Float32[Tensor, " length"]:
    """Centres of `length` equal cells that tile [-reach, reach]."""
    edges = torch.linspace(-reach, reach, length + 1, device=device)
    return (edges[:-1] + edges[1:]) / 2


def places(height: int, width: int, device: torch.device, merges: int) -> Float32[Tensor, "height width 2"]:
    """Token centres of a grid that was halved `merges` times: each is the mean of the four that it merged."""
    finest = height * 2**merges, width * 2**merges
    axes = (centres(length, length / max(finest), device) for length in finest)
    found = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    for _ in range(merges):
        found = rearrange(found, "(h p) (w q) two -> h w (p q) two", p=2, q=2).mean(dim=2)
    return found


def frequencies(
    num_heads: int, head_dim: int, device: torch.device
) -> Float32[Tensor, "heads pairs_per_axis"]:
    """Angular frequencies: head n gets entries n, n + num_heads, n + 2 num_heads ... of the log-spaced series."""
    count = num_heads * head_dim // 8
    logarithm = torch.linspace(math.log(math.pi), math.log(10 * math.pi), count + 1, device=device)[:-1]
    return logarithm.exp().view(head_dim // 8, num_heads).T


def angles(
    height: int, width: int, num_heads: int, head_dim: int, device: torch.device, merges: int = 0
) -> Float32[Tensor, "height width heads pairs"]:
    """Position x frequency: for the first half of the pairs along the height, then along the width."""
    omega = frequencies(num_heads, head_dim, device)
    place = places(height, width, device, merges)[:, :, None, :]
    return torch.cat((place[..., :1] * omega, place[..., 1:] * omega), dim=-1)


def rotation(
    height: int, width: int, num_heads: int, head_dim: int, like: Tensor, merges: int = 0
) -> Rotation:
    """Rotations of a height x width grid that was halved `merges` times; device and least precision as of `like`."""
    grid = height, width, num_heads, head_dim, merges, like.dtype, like.device
    return Rotation(
        *(constant_rotations(*grid) if torch.compiler.is_compiling() else computed_rotations(*grid))
    )


def computed_rotations(
    height: int,
    width: int,
    num_heads: int,
    head_dim: int,
    merges: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines, in at least float32."""
    angle = angles(height, width, num_heads, head_dim, device, merges)
    angle = angle.to(torch.promote_types(dtype, angle.dtype))
    return angle.cos(), angle.sin()


@constant_in_graphs  # a compiled graph holds them, instead of computing them in each call
def constant_rotations(*grid: Any) -> tuple[Tensor, Tensor]:
    """The same, kept for graphs of the same grid; the arguments of `computed_rotations`."""
    return kept_rotations(*grid)


@lru_cache(maxsize=64)
def kept_rotations(*grid: Any) -> tuple[Tensor, Tensor]:
    with ordinary_tensors():
        return computed_rotations(*grid)


def rotate(x: Heads, by: Rotation) -> Heads:
    """Rotate each pair of channels by its angle; products are computed in at least float32."""
    pairs = by.cos.shape[-1]
    first, second, rest = x.split((pairs, pairs, x.shape[-1] - 2 * pairs), dim=-1)
    turned = torch.cat((first * by.cos - second * by.sin, second * by.cos + first * by.sin), dim=-1)
    return torch.cat((turned.to(x.dtype), rest), dim=-1)
