"""A batch of images, transformed, and the numbers that say how."""

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, where

from lediflow.data.augmentation.config import AugmentConfig
from lediflow.data.augmentation.draws import Draws, draw, numbers_of
from lediflow.data.augmentation.geometry import linear_origin, shift
from lediflow.data.augmentation.resampling import Images, resampled
from lediflow.flow.noise import SampleNoise


class Augmented(NamedTuple):
    images: Images
    numbers: Float[Tensor, "batch 9"]


def augmented(
    images: Images, ids: Int64[Tensor, " batch"], noise: SampleNoise, config: AugmentConfig
) -> Augmented:
    """Images at places `ids` of the run, [-1, 1], squares; those that nothing happens to are returned bit for bit."""
    draws = draw(ids, noise, config)
    return Augmented(transformed(images, draws), numbers_of(draws))


def transformed(images: Images, draws: Draws) -> Images:
    """Each image as its draws say."""
    moved = images
    if images.device.type == "cpu":  # looking at the draws is free there; a GPU would have to be waited for
        rows = draws.is_resampled.nonzero()[:, 0]
        chosen = Draws(*(value[rows] for value in draws))
        moved = images.index_copy(0, rows, resampled(images[rows], linear_origin(chosen), shift(chosen)))
    else:
        moved = resampled(images, linear_origin(draws), shift(draws)).where(
            chosen_images(draws.is_resampled), images
        )
    moved = where(chosen_images(draws.mirrored.bool()), moved.flip(-1), moved)
    return where(chosen_images(draws.inverted.bool()), moved.flip(-2), moved)


def chosen_images(is_chosen: Tensor) -> Tensor:
    """A choice by image, for every number of it."""
    return is_chosen[:, None, None, None]
