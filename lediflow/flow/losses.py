"""The training objectives, one function per formula, each returning one number per sample.

Both VGL and the flow losses are means over pixels and channels, so their size does not depend on the
image's; the KL divergence is a sum over latent features, in nats. Gaussians are held as mean and
logvar = log sigma^2.
Source: arXiv:2505.20723, eqs. 2, 4, 5 and 6.
"""

import math

from jaxtyping import Float
from torch import Tensor

PerSample = Float[Tensor, " batch"]


def mean_over_pixels(x: Float[Tensor, "batch *dims"]) -> PerSample:
    return x.flatten(start_dim=1).mean(dim=1)


def variance_guided_loss(
    y: Float[Tensor, "batch *dims"],
    mean: Float[Tensor, "batch *dims"],
    logvar: Float[Tensor, "batch *dims"],
) -> PerSample:
    """1/2 [log sigma^2 + (y - mu)^2 / sigma^2], eq. 4: negative log-likelihood without 1/2 log 2 pi."""
    return mean_over_pixels(0.5 * (logvar + (y - mean).square() * (-logvar).exp()))


def gaussian_kl(mean: Float[Tensor, "batch *dims"], logvar: Float[Tensor, "batch *dims"]) -> PerSample:
    """KL(N(mean, exp(logvar)) || N(0, 1)), in nats, summed over features. Second term of eq. 5."""
    per_feature = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
    return per_feature.flatten(start_dim=1).sum(dim=1)


def flow_matching_loss(
    velocity: Float[Tensor, "batch *dims"], target: Float[Tensor, "batch *dims"]
) -> PerSample:
    """(v - target)^2, eq. 2."""
    return mean_over_pixels((velocity - target).square())


def importance_weight(
    logvar: Float[Tensor, "batch *dims"], exponent: float, cap: float
) -> Float[Tensor, "batch *dims"]:
    """min(sigma^-exponent, cap): large where the prior is sure."""
    # The cap is applied to the logarithm, so nothing overflows on its way to it.
    return (-0.5 * exponent * logvar).clamp(max=math.log(cap)).exp()


def importance_weighted_flow_loss(
    velocity: Float[Tensor, "batch *dims"],
    target: Float[Tensor, "batch *dims"],
    logvar: Float[Tensor, "batch *dims"],
    *,
    exponent: float,
    cap: float,
) -> PerSample:
    """min(sigma^-exponent, cap) (v - target)^2, eq. 6; exponent and cap are open in the paper."""
    return mean_over_pixels(importance_weight(logvar, exponent, cap) * (velocity - target).square())
