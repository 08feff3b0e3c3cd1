"""Flips, decided by the sample's place in the run: the k-th image is flipped or not whoever loads it."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor, where

from lediflow.flow.noise import SampleNoise

Images = Float[Tensor, "batch channels height width"]
DIMENSIONS = {"horizontal": -1, "vertical": -2}


def is_flipped(ids: Int64[Tensor, " batch"], noise: SampleNoise, *, axis: str) -> Bool[Tensor, " batch"]:
    """True for half of the places."""
    return noise.uniform(ids, f"flip_{axis}") < 0.5


def flipped(images: Images, ids: Int64[Tensor, " batch"], noise: SampleNoise, *, axis: str) -> Images:
    """Flip half of the images along "horizontal" or "vertical"."""
    chosen = is_flipped(ids, noise, axis=axis)
    return where(chosen[:, None, None, None], images.flip(DIMENSIONS[axis]), images)
