"""Latents as they are stored, their statistics, and how well they decode.

A sample is stored as one `.npy`: the channels of the mean, followed by those of the log variance for a stochastic
codec. If the mirrored image was encoded too, a first axis holds [as it is, mirrored]. `ShardReader.as_signals` reads
it back.

Statistics are per channel over a whole set, accumulated in float64 over batches and shards:

mean, std               of draws from the posteriors: E[z^2] = mean^2 + variance
mean_error_max, _rms    error of the posteriors' means from storing in float16, in units of that std
logvar_error_max, _rms  the same error of log variances, absolute (a relative change of the variance)

Sums and maxima can be merged, so shards are measured separately and in any number of pieces.

Reconstruction quality compares images -> latents -> images byte by byte. PSNR = 10 log10(255^2 / mean squared error),
in dB, per picture, after rounding to bytes as pictures are saved. It is infinite for a picture that is reconstructed
exactly; such pictures are counted instead.
"""

import functools
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, Float64, Int64, Shaped, UInt8
from PIL import Image
from torch import Tensor

from lediflow.codecs import Codec, Latents, signal_to_bytes
from lediflow.data.shards.reader import ShardReader
from lediflow.disk import whole_or_absent, write_json
from lediflow.errors import UserError

DTYPES = ("float16", "float32")  # dtypes in which latents of an autoencoder may be stored
Stored = Shaped[np.ndarray, "batch channels height width"]
Images = Float[Tensor, "batch channels height width"]
# sums, and maxima where the name begins with "max"
ChannelSums = dict[str, Float64[Tensor, " channels"]]
SHOWN = 8  # pictures in check.png
Samples = Int64[np.ndarray, " chosen"]
Bytes = UInt8[Tensor, "batch channels height width"]


def packed(latents: Latents, stored_dtype: str) -> Stored:
    """A batch of latents as one array in the stored dtype."""
    if stored_dtype == "uint8":
        return signal_to_bytes(latents.mean).numpy()
    halves = [half for half in latents if half is not None]
    return torch.cat(halves, dim=1).to(getattr(torch, stored_dtype)).numpy()


def check_range(latents: Latents, stored_dtype: str, keys: Sequence[str]) -> None:
    """UserError for latents that are not finite, or would not be finite in the stored dtype."""
    halves = [half.flatten(1) for half in latents if half is not None]
    largest = torch.cat(halves, dim=1).abs().amax(1)
    for key, value in zip(keys, largest.tolist(), strict=True):
        if not np.isfinite(value):
            raise UserError(
                f"sample {key}: its latents are not finite numbers; "
                "encode with codec.precision=float32, and look at the weights if that changes nothing"
            )
        if stored_dtype == "float16" and value > torch.finfo(torch.float16).max:
            raise UserError(
                f"sample {key}: its latents reach {value:,.0f}, more than float16 can hold (65,504); "
                "store them with dtype=float32"
            )


def npy_bytes(views: Sequence[Shaped[np.ndarray, "channels height width"]]) -> bytes:
    """The content of a .npy file with one view, or with several stacked along a first axis."""
    buffer = io.BytesIO()
    np.save(buffer, views[0] if len(views) == 1 else np.stack(views))
    return buffer.getvalue()


def padded(images: Images, count: int) -> Images:
    """Pad a batch to `count` images by repeating the last one, so that compiled code sees one shape."""
    missing = count - len(images)
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images


def measure(latents: Latents, stored_dtype: str) -> ChannelSums:
    """Sums and maxima over a batch."""
    mean = latents.mean.double()
    squares = mean.square()
    if latents.logvar is not None:
        squares = squares + latents.logvar.double().exp()
    channels, elements = mean.shape[1], float(mean[:, 0].numel())
    measured = {
        "elements": torch.full((channels,), elements, dtype=torch.float64),
        "sum": reduce(mean, "b c h w -> c", "sum"),
        "sum_squares": reduce(squares, "b c h w -> c", "sum"),
    }
    if stored_dtype == "float16":
        measured |= _rounding("mean", latents.mean)
        if latents.logvar is not None:
            measured |= _rounding("logvar", latents.logvar)
    return measured


def merged(pieces: Iterable[ChannelSums]) -> ChannelSums:
    """Sums and maxima over all pieces."""
    return functools.reduce(_merge, pieces)


def channel_statistics(measured: ChannelSums) -> dict[str, list[float]]:
    """The statistics described at the top of this module, from sums and maxima over the whole set."""
    elements = measured["elements"]
    mean = measured["sum"] / elements
    std = (measured["sum_squares"] / elements - mean.square()).clamp_min(0).sqrt()
    statistics = {"mean": mean, "std": std}
    for half, unit in (("mean", std), ("logvar", torch.ones_like(std))):
        if f"max_{half}_error" in measured:
            rms = (measured[f"sum_{half}_error_squares"] / elements).sqrt()
            statistics[f"{half}_error_max"] = _over(measured[f"max_{half}_error"], unit)
            statistics[f"{half}_error_rms"] = _over(rms, unit)
    return {name: values.tolist() for name, values in statistics.items()}


def to_json(measured: ChannelSums) -> dict[str, list[float]]:
    """Sums and maxima as lists, for the record of a shard."""
    return {name: values.tolist() for name, values in measured.items()}


def from_json(lists: dict[str, list[float]]) -> ChannelSums:
    """Sums and maxima from what `to_json` made."""
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}


def _rounding(half: str, values: Images) -> ChannelSums:
    error = (values.to(torch.float16).double() - values.double()).abs()
    return {
        f"max_{half}_error": reduce(error, "b c h w -> c", "max"),
        f"sum_{half}_error_squares": reduce(error.square(), "b c h w -> c", "sum"),
    }


def _merge(left: ChannelSums, right: ChannelSums) -> ChannelSums:
    return {
        name: torch.maximum(values, right[name]) if name.startswith("max") else values + right[name]
        for name, values in left.items()
    }


def _over(values: Tensor, unit: Tensor) -> Tensor:
    """values / unit; values are unchanged for a constant channel, whose unit is 0."""
    return values / torch.where(unit > 0, unit, torch.ones_like(unit))


@dataclass(frozen=True, kw_only=True)
class ReconstructionCheck:
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
) -> ReconstructionCheck:
    """Decode `count` samples spread evenly over the set; check.json and check.png are written to `folder`."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64))
    errors: list[float] = []
    for samples in np.array_split(chosen, math.ceil(len(chosen) / batch_size)):
        errors += squared_error(*pair(images, latents, codec, samples, device)).tolist()
    check = summary(errors, images.keys(chosen))
    write_json(folder / "check.json", vars(check))
    with whole_or_absent(folder / "check.png") as stream:
        comparison_picture(*pair(images, latents, codec, chosen[:SHOWN], device)).save(stream, "PNG")
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


def summary(errors: list[float], keys: list[str]) -> ReconstructionCheck:
    """Mean and worst PSNR of pictures, from their mean squared errors."""
    ratios = {key: psnr(error) for key, error in zip(keys, errors, strict=True) if error > 0}
    worst = min(ratios, key=lambda key: ratios[key], default=None)
    return ReconstructionCheck(
        samples=len(errors),
        exact=len(errors) - len(ratios),
        psnr_mean=sum(ratios.values()) / len(ratios) if ratios else None,
        psnr_worst=ratios[worst] if worst else None,
        worst_key=worst,
    )


def comparison_picture(originals: Bytes, decoded: Bytes) -> Image.Image:
    """A row of originals above a row of their reconstructions."""
    rows = rearrange([originals, decoded], "row b c h w -> (row h) (b w) c")
    pixels = rows.numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
