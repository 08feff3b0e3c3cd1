"""The identity codec, and the conversion between bytes and signals.

A byte b in 0 ... 255 is the signal b / 127.5 - 1 in [-1, 1]; rounding makes the inverse exact.
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lediflow.codecs.protocol import Latents


def bytes_to_signal(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map bytes 0 ... 255 to [-1, 1], float32."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def signal_to_bytes(signal: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Map [-1, 1] to bytes 0 ... 255, rounded; values outside are clipped."""
    return signal.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class PixelCodec:
    """Latents are the pixels themselves, RGB or grey."""

    name = "pixels"
    is_exact = True
    is_stochastic = False

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
