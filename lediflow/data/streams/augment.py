"""Flips, decided by the sample's place in the run: the k-th image is flipped or not whoever loads it."""

from jaxtyping import Float, Int64
from torch import Tensor, where

from lediflow.flow.noise import SampleNoise

Images = Float[Tensor, "batch channels height width"]


def flipped(images: Images, ids: Int64[Tensor, " batch"], noise: SampleNoise, *, axis: str) -> Images:
    """Flip half of the images along "horizontal" or "vertical"."""
    dim = {"horizontal": -1, "vertical": -2}[axis]
    chosen = noise.uniform(ids, f"flip_{axis}") < 0.5
    return where(chosen[:, None, None, None], images.flip(dim), images)
