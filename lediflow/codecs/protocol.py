"""The interface of a codec, images <-> latents; the codec of pixels, which changes nothing; bytes <-> signals.

"Images" are float in [-1, 1], (batch, 1 or 3, height, width). "Latents" are what the models of a run are trained on,
scaled so that the standard deviation of a channel is near 1. A stochastic encoder returns a mean and a log variance per
element, a deterministic one returns a mean alone.

A byte b in 0 ... 255 is the signal b / 127.5 - 1 in [-1, 1]; rounding makes the inverse exact.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lediflow.text import shown_hash


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
    reduction: int  # pixels per side of a latent

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


class PixelCodec:
    """Latents are the pixels themselves, RGB or grey."""

    name = "pixels"
    is_exact = True
    is_stochastic = False
    reduction = 1

    def latent_shape(self, image_size: int, image_channels: int) -> tuple[int, int, int]:
        return image_channels, image_size, image_size

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Latents:
        return Latents(images, None)

    def decode(
        self, latents: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return latents

    def record(self) -> dict[str, Any]:
        return {"name": self.name}


def bytes_to_signal(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map bytes 0 ... 255 to [-1, 1], float32."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def signal_to_bytes(signal: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Map [-1, 1] to bytes 0 ... 255, rounded; values outside are clipped."""
    return signal.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def describe_codec(codec: dict[str, Any] | None) -> str:
    """A codec's record as text: its name and the values that pin its weights."""
    if codec is None:
        return "an unknown codec's latents"
    if codec["name"] == "pixels":
        return "pixels"
    pinned = [f"{key} {shown_hash(codec[key])}" for key in ("weights", "scaling_factor") if key in codec]
    return f"latents of {' '.join([codec['name'], *pinned])}"
