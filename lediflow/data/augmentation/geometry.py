"""From the draws to where each point of the transformed image comes from.

Points are (x, y), x to the right and y downwards, from the image's middle. A point p of the image goes to

    F S R(-angle) R(direction) A R(-direction) (p + d)

F flips, S = 2^(0.2 scale), A = diag(2^(0.2 stretch), 2^(-0.2 stretch)), R(a) = [[cos a, -sin a], [sin a, cos a]], and
d = side / 8 (shift_x, shift_y): the image is shifted first and flipped last, as k-diffusion multiplies its matrices.
Flips exchange whole pixels and are not part of the map here.
"""

from jaxtyping import Float
from torch import Tensor, stack

from lediflow.data.augmentation.draws import Draws, PerImage

LOG2_FACTOR = 0.2  # of a draw of 1, for scaling and anisotropy
SHIFT = 1 / 8  # of a draw of 1, in sides
Matrices = Float[Tensor, "batch 2 2"]


def linear_origin(draws: Draws) -> Matrices:
    """L of p = L q - d: the inverse of the linear part, without flips."""
    wide, narrow = 2 ** (-LOG2_FACTOR * draws.stretch), 2 ** (LOG2_FACTOR * draws.stretch)
    along = rotation(draws.direction)
    unstretched = product(along * stack((wide, narrow), dim=1)[:, None, :], along.transpose(1, 2))
    smaller = 2 ** (-LOG2_FACTOR * draws.scale)
    return product(unstretched, rotation(draws.angle)) * smaller[:, None, None]


def shift(draws: Draws) -> Float[Tensor, "batch 2"]:
    """d, in sides of the image."""
    return SHIFT * stack((draws.shift_x, draws.shift_y), dim=1)


def rotation(angle: PerImage) -> Matrices:
    """R(angle)."""
    cos, sin = angle.cos(), angle.sin()
    return stack((stack((cos, -sin), dim=1), stack((sin, cos), dim=1)), dim=1)


def product(left: Matrices, right: Matrices) -> Matrices:
    """Matrix product with explicit sums, so that an image's matrix has the same bits in any batch."""
    return (left[:, :, :, None] * right[:, None, :, :]).sum(dim=2)
