"""Diagonal Gaussians, given by mean and logarithm of the variance (`logvar`).

The variance-guided loss (eq. 4) is unbounded below as sigma -> 0, which happens at flat or saturated pixels.
Therefore a predicted logvar is kept above a floor (optionally below a ceiling); the fraction of pixels at the floor
should be monitored.
Source: arXiv:2505.20723, eq. 3 and its third limitation.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sample(
    mean: Float[Tensor, " batch *dims"],
    logvar: Float[Tensor, " batch *dims"],
    noise: Float[Tensor, " batch *dims"],
) -> Float[Tensor, " batch *dims"]:
    """mean + sigma * noise: a draw from N(mean, exp(logvar)) for standard normal noise (reparameterisation)."""
    return mean + (0.5 * logvar).exp() * noise


def gaussian_log_density(
    x: Float[Tensor, " batch *dims"],
    mean: Float[Tensor, " batch *dims"],
    logvar: Float[Tensor, " batch *dims"],
) -> Float[Tensor, " batch"]:
    """log N(x; mean, exp(logvar)) of each sample, in nats."""
    per_entry = logvar + (x - mean).square() * (-logvar).exp() + math.log(2 * math.pi)
    return -0.5 * per_entry.flatten(start_dim=1).sum(dim=1)


def temper(logvar: Float[Tensor, "*dims"], temperature: float) -> Float[Tensor, "*dims"]:
    """The logvar after the standard deviation is multiplied by `temperature`; 0 leaves only the mean.

    ValueError unless temperature >= 0 and finite.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature {temperature}: give the factor of the standard deviation, 0 or more")
    return logvar + (2 * math.log(temperature) if temperature > 0 else -math.inf)


def widen(logvar: Float[Tensor, "*dims"], widening: float, scale: float = 1.0) -> Float[Tensor, "*dims"]:
    """log(scale^2 exp(logvar) + widening^2): multiply the deviation, then add independent noise.

    scale = 1 and widening = 0 return the tensor unchanged. ValueError unless scale > 0 and widening >= 0.
    """
    if not 0 <= widening < math.inf:
        raise ValueError(f"widening {widening}: give the standard deviation of the noise to add, 0 or more")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale {scale}: give the factor of the standard deviation, a number above 0")
    scaled = logvar if scale == 1 else temper(logvar, scale)
    if widening == 0:
        return scaled
    return torch.logaddexp(scaled, torch.full_like(scaled, 2 * math.log(widening)))


def bound_logvar(
    raw: Float[Tensor, "*dims"], floor: float, ceiling: float | None = None
) -> Float[Tensor, "*dims"]:
    """floor + softplus(raw - floor), then likewise the ceiling: smooth, close to the identity inside the bounds.

    As variances: the floor is added to exp(raw), and the ceiling in parallel (1 / (1/v + 1/c)).
    """
    if ceiling is None:
        return floor + F.softplus(raw - floor)
    if ceiling <= floor:
        raise ValueError(f"logvar ceiling {ceiling} is not above the floor {floor}; raise it, or give None")
    # the ceiling also lowers values at the floor; raising the floor by that amount keeps the lower limit exact
    raised = floor - math.log1p(-math.exp(floor - ceiling))
    return ceiling - F.softplus(ceiling - raised - F.softplus(raw - raised))


def share_at_floor(
    logvar: Float[Tensor, " batch *dims"], floor: float, margin: float = 0.1
) -> Float[Tensor, " batch"]:
    """The fraction of each sample's entries whose logvar lies within `margin` of the floor."""
    at_floor = (logvar < floor + margin).to(torch.float32)
    return at_floor.flatten(start_dim=1).mean(dim=1)
