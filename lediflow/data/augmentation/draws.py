"""Which transformations the k-th image of a run gets: a function of (seed, k), the same on any rank and device.

Each transformation has its own draws, so that switching one off does not change the others.
"""

import math
from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
from torch import Tensor, stack

from lediflow.data.augmentation.config import AugmentConfig
from lediflow.flow.noise import SampleNoise

PerImage = Float[Tensor, " batch"]


class Draws(NamedTuple):
    """Parameters of each image's transformations, 0 where nothing is done; a_0 to a_7 of the paper's table."""

    mirrored: PerImage  # 1: left and right exchanged
    inverted: PerImage  # 1: top and bottom exchanged
    scale: PerImage  # log2 of the factor, in units of 0.2
    angle: PerImage  # of the rotation, in radians, (-pi, pi)
    direction: PerImage  # along which it is stretched, in radians, (-pi, pi)
    stretch: PerImage  # log2 of the factor, in units of 0.2
    shift_x: PerImage  # to the right, in eighths of the side
    shift_y: PerImage  # downwards, in eighths of the side

    @property
    def is_resampled(self) -> Bool[Tensor, " batch"]:
        """Whether an image has any transformation but flips."""
        return stack((self.scale, self.angle, self.stretch, self.shift_x, self.shift_y)).ne(0).any(dim=0)


def draw(ids: Int64[Tensor, " batch"], noise: SampleNoise, config: AugmentConfig) -> Draws:
    """The draws of the images at places `ids` of the run."""
    chance = noise.uniform(ids, "augmentation chances", (6,)).unbind(dim=1)
    coin = noise.uniform(ids, "augmentation coin") < 0.5
    angle, direction = (noise.uniform(ids, "augmentation angles", (2,)) * (2 * math.pi) - math.pi).unbind(1)
    scale, stretch, shift_x, shift_y = noise.normal(ids, "augmentation sizes", (4,)).unbind(dim=1)

    def chosen(kind: int, is_on: bool, probability: float = config.probability) -> Bool[Tensor, " batch"]:
        return chance[kind] < (probability if is_on else 0.0)

    mirrored = chosen(0, config.flip_horizontal, 0.5 if config.probability else 0.0)
    inverted = chosen(1, config.flip_vertical) & coin
    is_scaled, is_turned = chosen(2, config.scaling), chosen(3, config.rotation)
    is_stretched, is_shifted = chosen(4, config.anisotropy), chosen(5, config.translation)
    return Draws(
        mirrored=mirrored.to(scale),
        inverted=inverted.to(scale),
        scale=scale.where(is_scaled, 0.0),
        angle=angle.where(is_turned, 0.0),
        direction=direction.where(is_stretched, 0.0),
        stretch=stretch.where(is_stretched, 0.0),
        shift_x=shift_x.where(is_shifted, 0.0),
        shift_y=shift_y.where(is_shifted, 0.0),
    )


def numbers_of(draws: Draws) -> Float[Tensor, "batch 9"]:
    """The numbers that a model is given, in k-diffusion's order and scale; zeros: no transformation."""
    return stack(
        (
            draws.mirrored,
            draws.inverted,
            draws.scale,
            draws.angle.cos() - 1,
            draws.angle.sin(),
            draws.stretch * draws.direction.cos(),
            draws.stretch * draws.direction.sin(),
            draws.shift_x,
            draws.shift_y,
        ),
        dim=1,
    )
