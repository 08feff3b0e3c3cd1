"""TAESD: a tiny autoencoder whose latents are close to Stable Diffusion's scaled ones
(github.com/madebyollin/taesd).

4 channels at an eighth of the side, no log-variance. It sees images in [0, 1]. Its weights are had in two forms:
the original's, a file for each half with the layers' numbers as names, and diffusers' `AutoencoderTiny`, one file
with `encoder.layers.` and `decoder.layers.` before the numbers. The original decoder begins with a clamp, which
diffusers does outside of its layers: its numbers are one lower there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.codecs.hub import weights_folder
from lediflow.codecs.protocol import Latents
from lediflow.codecs.taesd_layers import CHANNELS, REDUCTION, decoder, encoder
from lediflow.codecs.weights import (
    first_of,
    hash_of,
    in_colour,
    placed,
    read_weights,
    reduced_side,
    required_file,
)
from lediflow.errors import UserError

ENCODER = ("taesd_encoder.safetensors", "taesd_encoder.pth")
DECODER = ("taesd_decoder.safetensors", "taesd_decoder.pth")
DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

Weights = Mapping[str, Tensor]


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


def load_taesd(where: str, device: torch.device | str, dtype: torch.dtype) -> TAESD:
    """Load both halves, in whichever form the folder has them."""
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
    """Layers under `prefix` by the original's names."""
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
