"""How wide the flow's start should be: `stage.prior_widening=auto`.

The start is N(mu, (k sigma)^2 + s^2). `auto` sets s to FACTOR times a typical deviation of the prior, or to
FACTOR_SCALED times it where `stage.prior_scale=k` above 1 widens the prior already: s is then for pixels whose sigma is
too small.

A prior N(mu, sigma^2) of an image y leaves n = (y - mu) / sigma in each pixel. Two typical deviations, geometric means
over the pixels of images that the prior was not trained on:

    sigma     exp(E ln sigma)                            deviation of images from mu, as predicted
    residual  exp(E ln sigma + E ln max(|n|, c) - m)     as measured;  m = E ln max(|n|, c) for n ~ N(0, 1)

They agree where the prior is calibrated: m is the mean logarithm of a normal draw, -(gamma + ln 2) / 2 as c -> 0. A
prior that memorised its images is overconfident about others: their residual grows, sigma does not. Tails heavier than
normal (residual 0.75 of sigma for a Laplace distribution of the same variance) and flat areas that mu hits exactly make
the residual too small, therefore the larger of the two counts. Means of logarithms are robust against few extreme
pixels: edges that mu misses and, by the limit c, pixels that it hits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

FACTOR, FACTOR_SCALED = 2.75, 1.5  # s per typical deviation
WIDEST = 1.0  # no wider than the Gaussian noise that flow matching starts from without a prior
LEAST = 0.1  # c: a residual counts as at least this part of its pixel's sigma
MEAN_LOG = -0.5554372537101664  # m for this c: ln c + the integral from c on of P(|n| > u) / u


class Spread(NamedTuple):
    """Typical deviations of images from their prior's mean, in the images' units."""

    sigma: float
    residual: float


class Width(NamedTuple):
    """The start is N(mu, (scale sigma)^2 + added^2); `added` in the images' units."""

    scale: float = 1.0
    added: float = 0.0


def log_spreads(
    y: Float[Tensor, "batch *dims"], mean: Float[Tensor, "batch *dims"], logvar: Float[Tensor, "batch *dims"]
) -> Float64[Tensor, "batch 2"]:
    """ln sigma and ln residual of each image: means over its entries; y and the prior in the same units."""
    log_sigma = 0.5 * logvar.double()
    standardised = (y.double() - mean.double()).abs() * (-log_sigma).exp()
    log_residual = log_sigma + standardised.clamp(min=LEAST).log() - MEAN_LOG
    return torch.stack([log.flatten(1).mean(1) for log in (log_sigma, log_residual)], dim=1)


def typical_spread(logs: Float64[Tensor, "images 2"]) -> Spread:
    """Geometric means over images, each with the same weight."""
    return Spread(*logs.mean(0).exp().tolist())


def factor_for_scale(scale: float) -> float:
    """s per typical deviation, for a prior whose sigma is multiplied by `scale`."""
    return FACTOR_SCALED if scale > 1 else FACTOR


def automatic_width(spread: Spread, scale: float = 1.0) -> float:
    """s, in the images' units: a multiple of the larger deviation, at most WIDEST.

    Rounded to two significant digits, since further digits depend on the device. ValueError where a deviation is not
    finite, as with a model that diverged.
    """
    if not all(map(math.isfinite, spread)):
        raise ValueError(
            f"the prior's typical sigma is {spread.sigma}, its typical residual {spread.residual}: the auxiliary "
            "model has diverged; train it again with a lower train.learning_rate"
        )
    return float(f"{min(factor_for_scale(scale) * max(spread), WIDEST):.2g}")
