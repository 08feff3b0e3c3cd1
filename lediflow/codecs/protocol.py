"""The interface of a codec: images <-> latents.

"Images" are float in [-1, 1], (batch, 1 or 3, height, width). "Latents" are what the models of a run are trained on,
scaled so that the standard deviation of a channel is near 1. A stochastic encoder returns a mean and a log variance per
element, a deterministic one returns a mean alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor


class Latents(NamedTuple):
    """A Gaussian over latents, N(mean, exp(logvar)); a point mass at the mean if logvar is None."""

    mean: Float[Tensor, "batch channels height width"]
    logvar: Float[Tensor, "batch channels height width"] | None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Latents":
        """Apply a function to the mean, and to the logvar if there is one."""
        return Latents(function(self.mean), None if self.logvar is None else function(self.logvar))

    def draw(
        self, noise: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Reparameterised draw: mean + exp(logvar / 2) noise, for standard normal noise."""
        return self.mean if self.logvar is None else self.mean + (self.logvar / 2).exp() * noise


class Codec(Protocol):
    """Images <-> latents."""

    name: str
    is_exact: bool  # latents are the pixels themselves, which shards store as uint8
    is_stochastic: bool  # encode returns a logvar

    def latent_shape(self, image_size: int, image_channels: int) -> tuple[int, int, int]:
        """Channels, height and width of the latents of a square image."""
        ...

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Latents:
        """Images in [-1, 1] -> latents, float32."""
        ...

    def decode(
        self, latents: Float[Tensor, "batch latent_channels latent_height latent_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Latents -> images, nominally in [-1, 1]."""
        ...

    def record(self) -> dict[str, Any]:
        """Name and hash of the weights, for the index of shards that the codec makes."""
        ...


def describe_codec(codec: dict[str, Any] | None) -> str:
    """A codec's record as text: its name and the values that pin its weights."""
    if codec is None:
        return "an unknown codec's latents"
    if codec["name"] == "pixels":
        return "pixels"
    pinned = [f"{key} {str(codec[key])[:12]}" for key in ("weights", "scaling_factor") if key in codec]
    return f"latents of {' '.join([codec['name'], *pinned])}"
