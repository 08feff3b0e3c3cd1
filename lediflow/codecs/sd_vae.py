"""Stable Diffusion 2's variational autoencoder: the paper's SDV route. This is the only module that imports diffusers.

Its latents have 4 channels at an eighth of the side. They are multiplied by the scaling factor in its config.json
(0.18215), which brings their standard deviation near 1; log variances are shifted by 2 log(factor).
"""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.codecs.protocol import Latents
from lediflow.codecs.weights import (
    first_of,
    hash_of,
    in_colour,
    placed,
    reduced_side,
    required_file,
    weights_folder,
)
from lediflow.compat import fix_torchvision
from lediflow.errors import UserError

CONFIG = "config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
PIPELINE_FOLDER = "vae"  # folder of the autoencoder inside a Stable Diffusion pipeline


class SDVAE:
    """diffusers' AutoencoderKL as a codec."""

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


def load_sd_vae(where: str, device: torch.device | str, dtype: torch.dtype) -> SDVAE:
    """Load an autoencoder that diffusers saved: its folder, or a pipeline's folder that contains `vae`."""
    fix_torchvision()
    from diffusers import AutoencoderKL

    folder = _autoencoder_folder(where)
    files = [required_file(folder, names, SDVAE.name) for names in ([CONFIG], WEIGHTS)]
    is_pickled = files[1].suffix == ".bin"  # loaded with weights_only: no code in the file is run
    try:
        autoencoder = AutoencoderKL.from_pretrained(
            folder,
            torch_dtype=dtype,
            local_files_only=True,
            use_safetensors=not is_pickled,
            low_cpu_mem_usage=False,  # true would need accelerate
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"codec={SDVAE.name}: {folder} holds no AutoencoderKL that diffusers can load: {error}; "
            "give the folder of Stable Diffusion's autoencoder"
        ) from error
    return SDVAE(placed(autoencoder, device), hash_of(files))


def _autoencoder_folder(where: str) -> Path:
    """The autoencoder's folder; one with safetensors is preferred to one with a .bin file."""
    places = ("", f"{PIPELINE_FOLDER}/")
    for weights in WEIGHTS:
        wanted = [place + file for place in places for file in (CONFIG, weights)]
        folder = weights_folder(where, wanted, SDVAE.name)
        for place in places:
            if first_of(folder / place, [weights]):
                return folder / place
    return folder
