"""Computes the width of the flow's start for `stage.prior_widening=auto`.

The flow starts from N(mu, (k sigma)^2 + s^2). `auto` sets s to FACTOR times a typical deviation of the prior. If
`stage.prior_scale=k` above 1 widens the prior already, it is FACTOR_SCALED times the deviation: s then matters only
for pixels whose sigma is too small.

With a prior N(mu, sigma^2) of an image y, let n = (y - mu) / sigma in each pixel. Two typical deviations are computed,
as geometric means over the pixels of images that the prior was not trained on:

    sigma     exp(E ln sigma)                            predicted deviation of images from mu
    residual  exp(E ln sigma + E ln max(|n|, c) - m)     measured deviation;  m = E ln max(|n|, c) for n ~ N(0, 1)

They are equal if the prior is calibrated: m is the mean logarithm of a normal draw, -(gamma + ln 2) / 2 as c -> 0. A
prior that memorised its training images is overconfident about others: their residual is larger than sigma. Heavy tails
(residual 0.75 sigma for a Laplace distribution of the same variance) and flat areas where mu is exact make the residual
too small, so the larger of the two is used. Means of logarithms are robust against a few extreme pixels: edges that mu
misses and, because of the limit c, pixels where mu is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

WIDTH, SCALE = "prior_widening", "prior_scale"  # options of stage=flow, and keys in an export
FACTOR, FACTOR_SCALED = 2.75, 1.5  # s as a multiple of the typical deviation
WIDEST = 1.0  # not wider than N(0, I), where flow matching starts without a prior
LEAST = 0.1  # c: lower limit of |residual| / sigma in a pixel
MEAN_LOG = -0.5554372537101664  # m for this c: ln c + the integral from c on of P(|n| > u) / u


class Spread(NamedTuple):
    """Typical deviations of images from their prior's mean (predicted, measured), in the images' units."""

    sigma: float
    residual: float


class Width(NamedTuple):
    """The flow starts from N(mu, (scale sigma)^2 + added^2); `added` is in the images' units."""

    scale: float = 1.0
    added: float = 0.0


def recorded_width(facts: Mapping[str, Any]) -> Width:
    """The width in an export's facts; `Width()` for exports from before the options, and for other stages."""
    return Width(float(facts.get(SCALE) or 1.0), float(facts.get(WIDTH) or 0.0))


def log_spreads(
    y: Float[Tensor, " batch *dims"],
    mean: Float[Tensor, " batch *dims"],
    logvar: Float[Tensor, " batch *dims"],
) -> Float64[Tensor, "batch 2"]:
    """Mean ln sigma and mean ln residual of each image; y and the prior have the same units."""
    log_sigma = 0.5 * logvar.double()
    standardised = (y.double() - mean.double()).abs() * (-log_sigma).exp()
    log_residual = log_sigma + standardised.clamp(min=LEAST).log() - MEAN_LOG
    return torch.stack([log.flatten(1).mean(1) for log in (log_sigma, log_residual)], dim=1)


def typical_spread(logs: Float64[Tensor, "images 2"]) -> Spread:
    """Geometric means over images with equal weights."""
    return Spread(*logs.mean(0).exp().tolist())


def factor_for_scale(scale: float) -> float:
    """s as a multiple of the typical deviation, for a prior whose sigma is multiplied by `scale`."""
    return FACTOR_SCALED if scale > 1 else FACTOR


def automatic_width(spread: Spread, scale: float = 1.0) -> float:
    """s in the images' units: a multiple of the larger deviation, at most WIDEST.

    It is rounded to two significant digits, because more digits depend on the device. Raises ValueError if a deviation
    is not finite, as for a model that diverged.
    """
    if not all(map(math.isfinite, spread)):
        raise ValueError(
            f"the prior's typical sigma is {spread.sigma}, its typical residual {spread.residual}: the auxiliary "
            "model has diverged; train it again with a lower train.learning_rate"
        )
    return float(f"{min(factor_for_scale(scale) * max(spread), WIDEST):.2g}")
