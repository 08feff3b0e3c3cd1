"""Reconstruction quality of stored latents: images -> latents -> images, compared byte by byte.

PSNR = 10 log10(255^2 / mean squared error), in dB, per picture, after rounding to bytes as pictures are saved. It is
infinite for a picture that is reconstructed exactly; such pictures are counted instead.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float64, Int64, UInt8
from PIL import Image
from torch import Tensor

from lediflow.codecs import Codec, signal_to_bytes
from lediflow.data.shards.reader import ShardReader
from lediflow.disk import whole_or_absent, write_json

SHOWN = 8  # pictures in check.png

Samples = Int64[np.ndarray, " chosen"]
Bytes = UInt8[Tensor, "batch channels height width"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Reconstruction quality of decoded samples; the fields of check.json."""

    samples: int
    exact: int  # pictures reconstructed byte for byte
    psnr_mean: float | None  # mean over the other pictures, in dB; None if there are none
    psnr_worst: float | None
    worst_key: str | None

    def sentence(self) -> str:
        """The result in one sentence."""
        if self.psnr_mean is None:
            return f"checked {self.samples:,} samples: all come back exactly"
        exact = f", {self.exact:,} come back exactly" if self.exact else ""
        return (
            f"checked {self.samples:,} samples: PSNR {self.psnr_mean:.2f} dB on average, "
            f"{self.psnr_worst:.2f} dB at worst (sample {self.worst_key}){exact}"
        )


def check_latents(
    images: ShardReader,
    latents: ShardReader,
    codec: Codec,
    count: int,
    *,
    batch_size: int,
    device: torch.device,
    folder: Path,
) -> Check:
    """Decode `count` samples spread evenly over the set; check.json and check.png are written to `folder`."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64))
    errors: list[float] = []
    for samples in np.array_split(chosen, math.ceil(len(chosen) / batch_size)):
        errors += squared_error(*pair(images, latents, codec, samples, device)).tolist()
    check = summary(errors, images.keys(chosen))
    write_json(folder / "check.json", vars(check))
    with whole_or_absent(folder / "check.png") as stream:
        drawn(*pair(images, latents, codec, chosen[:SHOWN], device)).save(stream, "PNG")
    return check


@torch.inference_mode()
def pair(
    images: ShardReader, latents: ShardReader, codec: Codec, samples: Samples, device: torch.device
) -> tuple[Bytes, Bytes]:
    """Original pictures, and their reconstructions from the posterior's mean."""
    decoded = signal_to_bytes(codec.decode(latents.signals(samples).mean.to(device))).cpu()
    return signal_to_bytes(images.signals(samples).mean).expand_as(decoded), decoded


def squared_error(left: Bytes, right: Bytes) -> Float64[Tensor, " batch"]:
    """Mean squared difference per picture."""
    return reduce((left.double() - right.double()).square(), "b c h w -> b", "mean")


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of bytes."""
    return 10 * math.log10(255**2 / squared_error)


def summary(errors: list[float], keys: list[str]) -> Check:
    """Mean and worst PSNR of pictures, from their mean squared errors."""
    ratios = {key: psnr(error) for key, error in zip(keys, errors, strict=True) if error > 0}
    worst = min(ratios, key=lambda key: ratios[key], default=None)
    return Check(
        samples=len(errors),
        exact=len(errors) - len(ratios),
        psnr_mean=sum(ratios.values()) / len(ratios) if ratios else None,
        psnr_worst=ratios[worst] if worst else None,
        worst_key=worst,
    )


def drawn(originals: Bytes, decoded: Bytes) -> Image.Image:
    """A row of originals above a row of their reconstructions."""
    rows = rearrange([originals, decoded], "row b c h w -> (row h) (b w) c")
    pixels = rows.numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
