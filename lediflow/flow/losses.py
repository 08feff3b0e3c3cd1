"""Training losses, one function per formula, each returning one number per sample.

The variance-guided loss (VGL) and the flow losses are means over pixels and channels, so they do not depend on the
image size; the KL divergence is a sum over latent features, in nats. Gaussians are given by mean and
logvar = log sigma^2. Tensors of different shapes are refused with a ValueError.
Source: arXiv:2505.20723, eqs. 2, 4, 5 and 6; beta-NLL: Seitzer et al., arXiv:2203.09168; free bits: Kingma et al.,
arXiv:1606.04934.
"""

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor

PerSample = Float[Tensor, " batch"]
Reduction = Literal["mean", "sum"]


def check_shapes(**tensors: Tensor) -> None:
    """ValueError unless all tensors have the shape of the first; `logvar` may have ones in it, or be one number.

    Broadcasting would give a number for a velocity of other channels than its target, and for (batch,) and (batch, 1).
    """
    first = next(iter(tensors.values())).shape
    for name, tensor in tensors.items():
        is_equal = tensor.shape == first
        if name == "logvar" and not is_equal:
            is_equal = not tensor.ndim or (
                tensor.ndim == len(first)
                and all(size in (1, whole) for size, whole in zip(tensor.shape, first, strict=True))
            )
        if not is_equal:
            found = ", ".join(f"{key} {tuple(each.shape)}" for key, each in tensors.items())
            raise ValueError(f"a loss of tensors of different shapes: {found}; give all the same shape")


def mean_over_pixels(x: Float[Tensor, " batch *dims"]) -> PerSample:
    return x.flatten(start_dim=1).mean(dim=1)


def over_pixels(x: Float[Tensor, " batch *dims"], reduction: Reduction) -> PerSample:
    """Mean or sum over the entries of each sample."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction {reduction!r} over pixels is unknown; use 'mean' or 'sum'")
    return mean_over_pixels(x) if reduction == "mean" else x.flatten(start_dim=1).sum(dim=1)


def variance_guided_loss(
    y: Float[Tensor, " batch *dims"],
    mean: Float[Tensor, " batch *dims"],
    logvar: Float[Tensor, " batch *dims"],
    *,
    factor: float = 0.5,
    with_log_2pi: bool = False,
    reduction: Reduction = "mean",
) -> PerSample:
    """1/2 [log sigma^2 + (y - mu)^2 / sigma^2], eq. 4: negative log-likelihood without 1/2 log 2 pi.

    The paper does not specify the constants. With log 2 pi and the sum it is the negative log-likelihood, in nats.
    """
    return over_pixels(guided_by_variance(y, mean, logvar, factor, with_log_2pi), reduction)


def beta_nll_loss(
    y: Float[Tensor, " batch *dims"],
    mean: Float[Tensor, " batch *dims"],
    logvar: Float[Tensor, " batch *dims"],
    *,
    beta: float,
    factor: float = 0.5,
    with_log_2pi: bool = False,
    reduction: Reduction = "mean",
) -> PerSample:
    """VGL with pixels weighted by sigma^(2 beta), detached (eq. 5 of arXiv:2203.09168).

    beta = 0 is VGL, in which the mean learns slowly where sigma is large. With beta = 1 the gradient of the mean is
    that of the squared error.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta {beta} of beta-NLL: choose 0 (the variance-guided loss) to 1 (squared error)")
    weight = (beta * logvar).exp().detach()
    return over_pixels(weight * guided_by_variance(y, mean, logvar, factor, with_log_2pi), reduction)


def guided_by_variance(
    y: Float[Tensor, " batch *dims"],
    mean: Float[Tensor, " batch *dims"],
    logvar: Float[Tensor, " batch *dims"],
    factor: float,
    with_log_2pi: bool,
) -> Float[Tensor, " batch *dims"]:
    """Eq. 4 for each pixel, without reduction."""
    check_shapes(y=y, mean=mean, logvar=logvar)
    constant = math.log(2 * math.pi) if with_log_2pi else 0.0
    return factor * (logvar + (y - mean).square() * (-logvar).exp() + constant)


def gaussian_kl(mean: Float[Tensor, " batch *dims"], logvar: Float[Tensor, " batch *dims"]) -> PerSample:
    """KL(N(mean, exp(logvar)) || N(0, 1)), in nats, summed over features. Second term of eq. 5."""
    return gaussian_kl_by_feature(mean, logvar).flatten(start_dim=1).sum(dim=1)


def gaussian_kl_by_feature(
    mean: Float[Tensor, " batch *dims"], logvar: Float[Tensor, " batch *dims"]
) -> Float[Tensor, " batch *dims"]:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of each feature, in nats; 0 where the posterior is N(0, 1)."""
    check_shapes(mean=mean, logvar=logvar)
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def kl_with_free_bits(kl: Float[Tensor, " batch *dims"], free_nats: float) -> PerSample:
    """Free bits (arXiv:1606.04934): the sum over features of max(free_nats, kl), in nats, for each sample.

    Features below `free_nats` have no gradient; free_nats = 0 gives the plain sum. The reference takes the maximum of
    the mean over a minibatch and a group of features; here it is taken per sample, so that the loss does not depend on
    how a batch is split.
    """
    charged = kl.clamp(min=free_nats) if free_nats else kl
    return charged.flatten(start_dim=1).sum(dim=1)


def flow_matching_loss(
    velocity: Float[Tensor, " batch *dims"], target: Float[Tensor, " batch *dims"]
) -> PerSample:
    """(v - target)^2, eq. 2."""
    check_shapes(velocity=velocity, target=target)
    return mean_over_pixels((velocity - target).square())


def importance_weight(
    logvar: Float[Tensor, " batch *dims"], exponent: float, cap: float, *, normalize: bool = False
) -> Float[Tensor, " batch *dims"]:
    """min(sigma^-exponent, cap): large where sigma is small. If normalised, each sample's weights have mean 1."""
    check_importance(exponent, cap)
    # the cap is applied to the logarithm to avoid overflow
    weight = (-0.5 * exponent * logvar).clamp(max=math.log(cap)).exp()
    return weight / weight.flatten(1).mean(1).view(-1, *(1,) * (weight.ndim - 1)) if normalize else weight


def check_importance(exponent: float, cap: float) -> None:
    """ValueError for weights that would grow with sigma, or would not be positive."""
    if not exponent >= 0:
        raise ValueError(f"exponent {exponent} of the importance weight: choose 0 (equal weights) or more")
    if not cap > 0:
        raise ValueError(f"cap {cap} of the importance weight: choose more than 0; inf means no cap")


def importance_weighted_flow_loss(
    velocity: Float[Tensor, " batch *dims"],
    target: Float[Tensor, " batch *dims"],
    logvar: Float[Tensor, " batch *dims"],
    *,
    exponent: float,
    cap: float,
    normalize: bool = False,
) -> PerSample:
    """min(sigma^-exponent, cap) (v - target)^2, eq. 6; the paper does not specify exponent and cap."""
    check_shapes(velocity=velocity, target=target, logvar=logvar)
    weight = importance_weight(logvar, exponent, cap, normalize=normalize)
    return mean_over_pixels(weight * (velocity - target).square())
