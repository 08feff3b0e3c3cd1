"""Statistics of latents over a whole set, per channel, accumulated in float64 over batches and shards.

mean, std               of draws from the posteriors: E[z^2] = mean^2 + variance
mean_error_max, _rms    error of the posteriors' means from storing in float16, in units of that std
logvar_error_max, _rms  the same error of log variances, absolute (a relative change of the variance)

Sums and maxima can be merged, so shards are measured separately and in any number of pieces.
"""

from collections.abc import Iterable
from functools import reduce

import torch
from einops import reduce as reduced
from jaxtyping import Float, Float64
from torch import Tensor

from lediflow.codecs import Latents

Values = Float[Tensor, "batch channels height width"]
Measured = dict[str, Float64[Tensor, " channels"]]  # maxima if the name begins with "max", otherwise sums


def measure(latents: Latents, stored_dtype: str) -> Measured:
    """Sums and maxima over a batch."""
    mean = latents.mean.double()
    squares = mean.square()
    if latents.logvar is not None:
        squares = squares + latents.logvar.double().exp()
    channels, elements = mean.shape[1], float(mean[:, 0].numel())
    measured = {
        "elements": torch.full((channels,), elements, dtype=torch.float64),
        "sum": reduced(mean, "b c h w -> c", "sum"),
        "sum_squares": reduced(squares, "b c h w -> c", "sum"),
    }
    if stored_dtype == "float16":
        measured |= _rounding("mean", latents.mean)
        if latents.logvar is not None:
            measured |= _rounding("logvar", latents.logvar)
    return measured


def merged(pieces: Iterable[Measured]) -> Measured:
    """Sums and maxima over all pieces."""
    return reduce(_merge, pieces)


def channel_statistics(measured: Measured) -> dict[str, list[float]]:
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


def to_json(measured: Measured) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in measured.items()}


def from_json(lists: dict[str, list[float]]) -> Measured:
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in lists.items()}


def _rounding(half: str, values: Values) -> Measured:
    error = (values.to(torch.float16).double() - values.double()).abs()
    return {
        f"max_{half}_error": reduced(error, "b c h w -> c", "max"),
        f"sum_{half}_error_squares": reduced(error.square(), "b c h w -> c", "sum"),
    }


def _merge(left: Measured, right: Measured) -> Measured:
    return {
        name: torch.maximum(values, right[name]) if name.startswith("max") else values + right[name]
        for name, values in left.items()
    }


def _over(values: Tensor, unit: Tensor) -> Tensor:
    """values / unit; values are unchanged for a constant channel, whose unit is 0."""
    return values / torch.where(unit > 0, unit, torch.ones_like(unit))
