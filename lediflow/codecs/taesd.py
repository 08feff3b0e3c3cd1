"""TAESD: a tiny autoencoder whose latents are close to Stable Diffusion's scaled latents.

4 channels at an eighth of the side, no log variance. It takes images in [0, 1]. Its weights exist in two forms: the
original's, one file for each half with the layers' indices as names, and diffusers' `AutoencoderTiny`, one file with
`encoder.layers.` and `decoder.layers.` before the indices. The original decoder begins with a clamp, which diffusers
applies outside its layers: there, the decoder's indices are one lower.
Source: github.com/madebyollin/taesd (MIT).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.codecs.protocol import Latents
from lediflow.codecs.weights import (
    first_of,
    hash_of,
    in_colour,
    placed,
    read_weights,
    reduced_side,
    required_file,
    weights_folder,
)
from lediflow.errors import UserError

WIDTH = 64
CHANNELS = 4
REDUCTION = 8
ENCODER = ("taesd_encoder.safetensors", "taesd_encoder.pth")
DECODER = ("taesd_decoder.safetensors", "taesd_decoder.pth")
DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
Weights = Mapping[str, Tensor]


class Block(nn.Module):
    """Three convolutions with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.conv(x)).relu()


class SoftClamp(nn.Module):
    """3 tanh(x / 3): limits latents to (-3, 3)."""

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
    """Images in [0, 1] -> latents; layers in the order of the original weights' names."""
    stages = [layer for _ in range(3) for layer in (_halve(), *_blocks(3))]
    return nn.Sequential(_conv(3, WIDTH), *_blocks(1), *stages, _conv(WIDTH, CHANNELS))


def decoder() -> nn.Sequential:
    """Latents -> images in [0, 1]; layers in the order of the original weights' names."""
    stages = [layer for _ in range(3) for layer in (*_blocks(3), *_double())]
    return nn.Sequential(
        SoftClamp(), _conv(CHANNELS, WIDTH), nn.ReLU(), *stages, *_blocks(1), _conv(WIDTH, 3)
    )


class TAESD:
    """TAESD as a codec."""

    name = "taesd"
    is_exact = False
    is_stochastic = False
    reduction = REDUCTION

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


def load_taesd(where: str, device: torch.device | str, dtype: torch.dtype) -> TAESD:
    """Load the encoder and the decoder, in either form of the weights."""
    folder = weights_folder(where, (ENCODER[0], DECODER[0], DIFFUSERS[0]), TAESD.name)
    if first_of(folder, ENCODER) is None and (joint := first_of(folder, DIFFUSERS)):
        files, weights = [joint], _halves_of_diffusers(read_weights(joint, TAESD.name))
    else:
        files = [required_file(folder, names, TAESD.name) for names in (ENCODER, DECODER)]
        weights = [read_weights(file, TAESD.name) for file in files]
    halves = [_filled(half, of, files) for half, of in zip((encoder(), decoder()), weights, strict=True)]
    halves = [placed(half.to(dtype), device) for half in halves]
    return TAESD(halves[0], halves[1], hash_of(files))


def _halves_of_diffusers(weights: Weights) -> list[Weights]:
    return [_renamed(weights, "encoder.layers.", shift=0), _renamed(weights, "decoder.layers.", shift=1)]


def _renamed(weights: Weights, prefix: str, shift: int) -> Weights:
    """The tensors under `prefix`, renamed to the original's names."""
    renamed = {}
    for name, value in weights.items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            renamed[f"{int(number) + shift}.{rest}"] = value
    return renamed


def _filled(half: nn.Module, weights: Weights, files: list[Path]) -> nn.Module:
    try:
        half.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(
            f"codec={TAESD.name}: {', '.join(map(str, files))} hold other layers than TAESD has ({reason}); "
            "its weights are madebyollin/taesd on the hub"
        ) from error
    return half
