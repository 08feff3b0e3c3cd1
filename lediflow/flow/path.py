"""Straight path between a prior draw and an image.

Convention, everywhere: t = 0 is the prior (x_0), t = 1 is data (x_1).
Source: arXiv:2505.20723, section 2.1, eq. 2; where x_0 is called x and x_1 is called y.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def point_on_path(
    x_0: Float[Tensor, "batch *dims"], x_1: Float[Tensor, "batch *dims"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *dims"]:
    """psi_t = (1 - t) x_0 + t x_1: the point at time t on the segment from x_0 to x_1."""
    return torch.lerp(x_0, x_1, align(t, x_1))


def path_velocity(
    x_0: Float[Tensor, "batch *dims"], x_1: Float[Tensor, "batch *dims"]
) -> Float[Tensor, "batch *dims"]:
    """x_1 - x_0: the velocity along the segment, constant in time."""
    return x_1 - x_0


def align(t: Float[Tensor, " batch"], like: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch *ones"]:
    """t with axes of length one appended, so that it broadcasts with `like` by sample."""
    return t.to(like.dtype).view(-1, *(1,) * (like.ndim - 1))
