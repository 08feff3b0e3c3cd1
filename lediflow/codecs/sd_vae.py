"""Stable Diffusion 2's variational autoencoder: the paper's SDV route. The only home of diffusers.

Its latents have 4 channels at an eighth of the side. They are multiplied by the scaling factor in its
config.json (0.18215), which brings their standard deviation near 1; log-variances shift by 2 log(factor).
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.codecs.protocol import Latents
from lediflow.codecs.weights import hash_of, in_colour, reduced_side, required_file
from lediflow.compat import mend_torchvision


class SDVAE:
    """AutoencoderKL as a codec."""

    name = "sd2_vae"
    is_exact = False
    is_stochastic = True

    def __init__(self, autoencoder: Any, weights: str):
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.weights = weights
        self.scale: float = autoencoder.config.scaling_factor
        self.channels: int = autoencoder.config.latent_channels
        self.reduction = 2 ** (len(autoencoder.config.block_out_channels) - 1)

    def latent_shape(self, image_size: int, image_channels: int) -> tuple[int, int, int]:
        side = reduced_side(image_size, self.reduction, self.name)
        return self.channels, side, side

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Latents:
        posterior = self.autoencoder.encode(in_colour(images).to(self.autoencoder.dtype)).latent_dist
        logvar = posterior.logvar.float() + 2 * math.log(self.scale)
        return Latents(posterior.mean.float() * self.scale, logvar)

    def decode(
        self, latents: Float[Tensor, "batch latent_channels latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        return self.autoencoder.decode((latents / self.scale).to(self.autoencoder.dtype)).sample.float()

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "scaling_factor": self.scale, "weights": self.weights}


def load_sd_vae(path: str, device: torch.device | str, dtype: torch.dtype) -> SDVAE:
    """Load from a folder as diffusers saves it: config.json and safetensors."""
    mend_torchvision()
    from diffusers import AutoencoderKL

    folder = Path(path)
    config = required_file(folder, "config.json", SDVAE.name)
    weights = required_file(folder, "diffusion_pytorch_model.safetensors", SDVAE.name)
    autoencoder = AutoencoderKL.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
    return SDVAE(autoencoder.to(device), hash_of([config, weights]))
