"""TAESD: a tiny autoencoder whose latents are close to Stable Diffusion's scaled ones
(github.com/madebyollin/taesd).

4 channels at an eighth of the side, no log-variance. It sees images in [0, 1]. The layers stand in the order
of the original weights' names: `taesd_encoder.safetensors` and `taesd_decoder.safetensors` in one folder.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from lediflow.codecs.protocol import Latents
from lediflow.codecs.weights import hash_of, in_colour, reduced_side, required_file

WIDTH = 64
CHANNELS = 4
REDUCTION = 8


class Block(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.conv(x)).relu()


class SoftClamp(nn.Module):
    """Keeps latents within -3 ... 3."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / 3).tanh() * 3


def _conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def _blocks(count: int) -> list[nn.Module]:
    return [Block() for _ in range(count)]


def _halve() -> nn.Conv2d:
    return _conv(WIDTH, WIDTH, stride=2, bias=False)


def _double() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)]


def encoder() -> nn.Sequential:
    """[0, 1] images -> latents."""
    stages = [layer for _ in range(3) for layer in (_halve(), *_blocks(3))]
    return nn.Sequential(_conv(3, WIDTH), *_blocks(1), *stages, _conv(WIDTH, CHANNELS))


def decoder() -> nn.Sequential:
    """Latents -> [0, 1] images."""
    stages = [layer for _ in range(3) for layer in (*_blocks(3), *_double())]
    return nn.Sequential(
        SoftClamp(), _conv(CHANNELS, WIDTH), nn.ReLU(), *stages, *_blocks(1), _conv(WIDTH, 3)
    )


class TAESD:
    """TAESD as a codec."""

    name = "taesd"
    is_exact = False
    is_stochastic = False

    def __init__(self, encoder: nn.Module, decoder: nn.Module, weights: str):
        self.encoder = encoder.eval().requires_grad_(False)
        self.decoder = decoder.eval().requires_grad_(False)
        self.dtype = next(encoder.parameters()).dtype
        self.weights = weights

    def latent_shape(self, image_size: int, image_channels: int) -> tuple[int, int, int]:
        side = reduced_side(image_size, REDUCTION, self.name)
        return CHANNELS, side, side

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Latents:
        in_unit_range = in_colour(images).add(1).div(2)
        return Latents(self.encoder(in_unit_range.to(self.dtype)).float(), None)

    def decode(
        self, latents: Float[Tensor, "batch latent_channels latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        return self.decoder(latents.to(self.dtype)).float().clamp(0, 1).mul(2).sub(1)

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "weights": self.weights}


def load_taesd(path: str, device: torch.device | str, dtype: torch.dtype) -> TAESD:
    """Load from a folder that holds both halves."""
    names = ("taesd_encoder.safetensors", "taesd_decoder.safetensors")
    files = [required_file(Path(path), name, TAESD.name) for name in names]
    halves = [encoder(), decoder()]
    for half, file in zip(halves, files, strict=True):
        half.load_state_dict(load_file(file))
    halves = [half.to(device, dtype) for half in halves]
    return TAESD(halves[0], halves[1], hash_of(files))
