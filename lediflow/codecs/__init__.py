"""Codecs: the space in which images are modelled, pixels or the latents of an autoencoder.

pixels   the pixels themselves
sd2_vae  Stable Diffusion 2's variational autoencoder (4 channels, 8x smaller)
taesd    a tiny autoencoder of nearly the same latent space

Weights are read from a local folder or from the Hugging Face hub.
"""

from dataclasses import dataclass

import torch

from lediflow.codecs.protocol import Codec, Latents, PixelCodec, bytes_to_signal, signal_to_bytes
from lediflow.errors import UserError

__all__ = [
    "CODECS",
    "Codec",
    "CodecConfig",
    "Latents",
    "PixelCodec",
    "build_codec",
    "bytes_to_signal",
    "signal_to_bytes",
]

CODECS = ("pixels", "sd2_vae", "taesd")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(kw_only=True)
class CodecConfig:
    """Which codec, and where its weights are."""

    name: str = "pixels"  # one of CODECS
    path: str | None = None  # folder of the weights, or a name on the hub; not used by pixels
    # dtype of its arithmetic; "bfloat16" and "float16" are faster on a GPU, less exact
    precision: str = "float32"


def build_codec(config: CodecConfig, device: torch.device | str = "cpu") -> Codec:
    """Load the configured codec on `device`; UserError if its name, weights or precision are not usable."""
    if config.name == "pixels":
        return PixelCodec()
    if config.name not in CODECS:
        raise UserError(f"codec={config.name} is not known; choose one of {', '.join(CODECS)}")
    if config.path is None:
        raise UserError(
            f"codec={config.name} needs its weights; give their folder, or name on the hub, as codec.path=..."
        )
    if config.precision not in PRECISIONS:
        raise UserError(
            f"codec.precision={config.precision} is not known; choose one of {', '.join(PRECISIONS)}"
        )
    dtype = PRECISIONS[config.precision]
    if config.name == "taesd":
        from lediflow.codecs.taesd import load_taesd

        return load_taesd(config.path, device, dtype)
    from lediflow.codecs.sd_vae import load_sd_vae

    return load_sd_vae(config.path, device, dtype)
