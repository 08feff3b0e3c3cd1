"""What a metric expects of a feature extractor."""

from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor


class FeatureExtractor(Protocol):
    """Turns images into vectors that lie close where people see likeness."""

    name: str
    dim: int
    record: dict[str, Any]  # name, hash of the weights, preprocessing: what statistics are bound to

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim"]:
        """Raw float32 features of grey or RGB images in [-1, 1]; `unit` normalises them."""
