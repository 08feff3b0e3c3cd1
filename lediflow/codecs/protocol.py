"""What a codec is: images <-> latents, the two words defined once.

"Images" are float in [-1, 1], (batch, 1 or 3, height, width). "Latents" are what the models of a run learn:
scaled so that one channel's standard deviation is near 1. A codec whose encoder is stochastic gives a mean
and a log-variance per element; one that is not gives a mean alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor


class Latents(NamedTuple):
    """Gaussian over latents, N(mean, exp(logvar)); without a logvar, the mean itself."""

    mean: Float[Tensor, "batch channels height width"]
    logvar: Float[Tensor, "batch channels height width"] | None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Latents":
        """The function's results on what is there."""
        return Latents(function(self.mean), None if self.logvar is None else function(self.logvar))

    def draw(
        self, noise: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The latents that standard normal noise stands for."""
        return self.mean if self.logvar is None else self.mean + (self.logvar / 2).exp() * noise


class Codec(Protocol):
    """Images <-> latents."""

    name: str
    is_exact: bool  # latents are the pixels themselves, which shards store as uint8
    is_stochastic: bool  # encode gives a logvar

    def latent_shape(self, image_size: int, image_channels: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of an image."""
        ...

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Latents: ...

    def decode(
        self, latents: Float[Tensor, "batch latent_channels latent_height latent_width"]
    ) -> Float[Tensor, "batch channels height width"]: ...

    def record(self) -> dict[str, Any]:
        """Name and whatever pins the weights, for the index of the shards it makes."""
        ...
