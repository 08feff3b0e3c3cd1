"""Sums over the pixels of a batch, of an image y under its prior N(mu, sigma^2); z = (y - mu) / sigma.

Everything the diagnostics say is a function of these sums, and sums of batches and ranks add up.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.gaussians import share_at_floor
from lediflow.flow.losses import gaussian_kl_by_feature
from lediflow.models.auxiliary import Posterior, Prior

Z_EDGES = torch.linspace(-5, 5, 101, dtype=torch.float64)
LEVELS = [step / 20 for step in range(1, 20)]  # of central intervals: 5 % ... 95 %
SIGMA_EDGES = 2 ** torch.arange(-8, 2.01, 0.5, dtype=torch.float64)  # half doublings, from half a grey level


class PriorSums(NamedTuple):
    """Of one batch; every entry is a float64 vector or scalar on the CPU."""

    images: Tensor
    entries: Tensor  # pixels times channels
    nll: Tensor  # nats, with the constant log(2 pi) / 2 of each entry
    kl: Tensor  # nats, of the posteriors, by the latent's channel
    latent: Tensor  # sums of the posteriors' means and of their squares, by the latent's entry
    z_powers: Tensor  # sums of z, z^2, z^3, z^4
    z_histogram: Tensor  # below the edges, between them, above
    inside: Tensor  # entries whose z lies within each level's central interval
    sigma: Tensor  # sums of sigma and sigma^2
    logvar: Tensor
    at_floor: Tensor
    squared_error: Tensor  # of the mean
    psnr: Tensor  # of the mean, dB, summed over images
    bin_count: Tensor  # of entries by their sigma
    bin_error: Tensor  # squared errors of these
    bin_variance: Tensor  # and what the prior said they would be


def prior_sums(
    y: Float[Tensor, "batch channels height width"], prior: Prior, posterior: Posterior, floor: float
) -> PriorSums:
    """Of images in [-1, 1], or of latents."""
    mean, logvar = prior.mean.double(), prior.logvar.double()
    error = (y.double() - mean).square()
    z = (y.double() - mean) * (-0.5 * logvar).exp()
    sigma = (0.5 * logvar).exp()
    edges = Z_EDGES.to(z.device)
    bins = torch.bucketize(sigma.flatten(), SIGMA_EDGES.to(z.device))
    per_image = error.flatten(1).mean(dim=1)
    found = PriorSums(
        images=count(len(y)),
        entries=count(y.numel()),
        nll=0.5 * (logvar + z.square() + math.log(2 * math.pi)).sum(),
        kl=gaussian_kl_by_feature(posterior.mean.double(), posterior.logvar.double()).sum(dim=(0, 2, 3)),
        latent=torch.stack([posterior.mean.double().pow(power).sum(dim=0).flatten() for power in (1, 2)]),
        z_powers=torch.stack([(z**power).sum() for power in (1, 2, 3, 4)]),
        z_histogram=torch.bincount(torch.bucketize(z.flatten(), edges), minlength=len(edges) + 1),
        inside=torch.stack([(z.abs() <= reach).sum() for reach in map(half_width, LEVELS)]),
        sigma=torch.stack([sigma.sum(), sigma.square().sum()]),
        logvar=logvar.sum(),
        at_floor=share_at_floor(prior.logvar, floor).double().sum() * y[0].numel(),
        squared_error=error.sum(),
        psnr=psnr(per_image).sum(),
        bin_count=in_bins(bins),
        bin_error=in_bins(bins, error.flatten()),
        bin_variance=in_bins(bins, sigma.square().flatten()),
    )
    return PriorSums(*(value.to("cpu", torch.float64) for value in found))


def half_width(level: float) -> float:
    """Of the central interval that a standard normal draw falls into with this probability."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def psnr(mse: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Peak signal-to-noise ratio in dB, of signals in [-1, 1]: the peak is 2."""
    return 10 * torch.log10(4 / mse)


def in_bins(bins: Tensor, weights: Tensor | None = None) -> Tensor:
    return torch.bincount(bins, weights, minlength=len(SIGMA_EDGES) + 1)


def count(number: int) -> Tensor:
    return torch.tensor(float(number))


def packed(sums: PriorSums) -> Float[Tensor, " values"]:
    return torch.cat([value.flatten() for value in sums])


def unpacked(values: Float[Tensor, " values"], like: PriorSums) -> PriorSums:
    parts = values.split([value.numel() for value in like])
    return PriorSums(*(part.view_as(value) for part, value in zip(parts, like, strict=True)))
