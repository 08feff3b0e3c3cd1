"""Codecs: the space in which images are modelled, pixels or the latents of an autoencoder.

Weights are read from a local folder or from the Hugging Face hub.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lediflow.codecs.protocol import Codec, Latents, PixelCodec, bytes_to_signal, signal_to_bytes
from lediflow.codecs.sd_vae import load_sd_vae
from lediflow.codecs.taesd import load_taesd
from lediflow.errors import UserError

__all__ = [
    "CODECS",
    "Codec",
    "CodecConfig",
    "CodecKind",
    "Latents",
    "PixelCodec",
    "build_codec",
    "bytes_to_signal",
    "signal_to_bytes",
]


@dataclass(frozen=True)
class CodecKind:
    """How a codec is loaded."""

    # from the folder of its weights or their name on the hub, the device, and the dtype of its arithmetic
    load: Callable[[str, torch.device | str, torch.dtype], Codec]
    # without weights, codec.path and codec.precision are not used: "" and float32
    has_weights: bool = True


# by name, in the order of messages; a new codec is one entry
CODECS: dict[str, CodecKind] = {
    # the pixels themselves
    "pixels": CodecKind(lambda path, device, dtype: PixelCodec(), has_weights=False),
    # Stable Diffusion 2's variational autoencoder (4 channels, 8x smaller)
    "sd2_vae": CodecKind(load_sd_vae),
    # a tiny autoencoder of nearly the same latent space
    "taesd": CodecKind(load_taesd),
}
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
    if config.name not in CODECS:
        raise UserError(f"codec={config.name} is not known; choose one of {', '.join(CODECS)}")
    kind = CODECS[config.name]
    if not kind.has_weights:
        return kind.load("", device, torch.float32)
    if config.path is None:
        raise UserError(
            f"codec={config.name} needs its weights; give their folder, or name on the hub, as codec.path=..."
        )
    if config.precision not in PRECISIONS:
        raise UserError(
            f"codec.precision={config.precision} is not known; choose one of {', '.join(PRECISIONS)}"
        )
    return kind.load(config.path, device, PRECISIONS[config.precision])
