"""A batch of images, transformed, and the numbers that say how."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
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
    """Augment square images, [-1, 1], at places `ids` of the run; images without a transformation keep their bits."""
    draws = draw(ids, noise, config)
    return Augmented(transformed(images, draws), numbers_of(draws))


def transformed(images: Images, draws: Draws) -> Images:
    """Each image, transformed by its draws."""
    # reading the draws costs nothing on a CPU, but would synchronise with a GPU
    resample = some_resampled if images.device.type == "cpu" else all_resampled
    moved = resample(images, draws)
    moved = where(by_image(draws.mirrored.bool()), moved.flip(-1), moved)
    return where(by_image(draws.inverted.bool()), moved.flip(-2), moved)


def some_resampled(images: Images, draws: Draws) -> Images:
    """All transformations but flips, computed for the images that need them."""
    rows = draws.is_resampled.nonzero()[:, 0]
    chosen = Draws(*(value[rows] for value in draws))
    return images.index_copy(0, rows, resampled(images[rows], linear_origin(chosen), shift(chosen)))


def all_resampled(images: Images, draws: Draws) -> Images:
    """All transformations but flips, computed for all images and selected on the device, without synchronisation."""
    moved = resampled(images, linear_origin(draws), shift(draws))
    return where(by_image(draws.is_resampled), moved, images)


def by_image(is_chosen: Bool[Tensor, " batch"]) -> Bool[Tensor, "batch 1 1 1"]:
    """One choice per image, shaped to select whole images."""
    return is_chosen[:, None, None, None]
