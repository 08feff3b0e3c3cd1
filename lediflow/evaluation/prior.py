"""Likelihood, calibration and sharpness of a learned prior N(mu, sigma^2) on real images y.

nll              -log p(y | z) at the posterior's mean z, per entry: in nats, and for pixels in bits per byte
z                (y - mu) / sigma: mean 0, variance 1, kurtosis 3 if the prior is right and Gaussian
ence             expected normalised calibration error (Levi et al. 2019, arXiv:1905.11659): mean over bins of sigma of
                 |root mean squared error - root mean variance| / root mean variance
coverage_error   mean over levels of |observed - nominal| share of entries within central intervals (Kuleshov et al.
                 2018, arXiv:1807.00263)
sharpness        mean, root mean square, geometric mean of sigma: of two calibrated priors the sharper one leaves less
                 to the flow
psnr             of the prior's mean as a reconstruction, mean over images in dB; for pixels, as latents have no peak
active_units     latent entries whose posterior mean varies between images, variance above 0.01 (Burda et al. 2016,
                 arXiv:1509.00519); the decoder gets no information from the others

All are functions of sums over pixels, which add up over batches and ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.flow.gaussians import share_at_floor
from lediflow.flow.losses import gaussian_kl_by_feature
from lediflow.models.auxiliary import AuxiliaryModel, Posterior, Prior
from lediflow.sampling.options import batches

Z_EDGES = torch.linspace(-5, 5, 101, dtype=torch.float64)
LEVELS = [step / 20 for step in range(1, 20)]  # probabilities of central intervals: 5 % ... 95 %
SIGMA_EDGES = 2 ** torch.arange(-8, 2.01, 0.5, dtype=torch.float64)  # half doublings, from half a grey level
ACTIVE_VARIANCE = 0.01
Images = Float[Tensor, "batch channels height width"]


class PriorSums(NamedTuple):
    """Sums over a batch; every entry is a float64 vector or scalar on the CPU."""

    images: Tensor
    entries: Tensor  # pixels times channels
    nll: Tensor  # nats, with the constant log(2 pi) / 2 of each entry
    kl: Tensor  # nats, of the posteriors, for each channel of the latent
    latent: Tensor  # sums of the posteriors' means and of their squares, for each entry of the latent
    z_powers: Tensor  # sums of z, z^2, z^3, z^4
    z_histogram: Tensor  # counts below the edges, between them, and above
    inside: Tensor  # entries with z inside the central interval of each level
    sigma: Tensor  # sums of sigma and sigma^2
    logvar: Tensor
    at_floor: Tensor
    squared_error: Tensor  # of the mean
    psnr: Tensor  # of the mean, dB, summed over images
    bin_count: Tensor  # entries in each bin of sigma
    bin_error: Tensor  # their squared errors
    bin_variance: Tensor  # their variances according to the prior


def prior_sums(
    y: Float[Tensor, "batch channels height width"], prior: Prior, posterior: Posterior, floor: float
) -> PriorSums:
    """Sums for images in [-1, 1], or for latents."""
    mean, logvar = prior.mean.double(), prior.logvar.double()
    error = (y.double() - mean).square()
    z = (y.double() - mean) * (-0.5 * logvar).exp()
    sigma = (0.5 * logvar).exp()
    edges = Z_EDGES.to(z.device)
    bins = torch.bucketize(sigma.flatten(), SIGMA_EDGES.to(z.device))
    per_image = error.flatten(1).mean(dim=1)
    found = PriorSums(
        images=scalar(len(y)),
        entries=scalar(y.numel()),
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
    """Half the width of the central interval that contains a standard normal draw with this probability."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def psnr(mse: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Peak signal-to-noise ratio in dB, of signals in [-1, 1]: the peak is 2."""
    return 10 * torch.log10(4 / mse)


def in_bins(bins: Tensor, weights: Tensor | None = None) -> Tensor:
    return torch.bincount(bins, weights, minlength=len(SIGMA_EDGES) + 1)


def scalar(number: int) -> Tensor:
    return torch.tensor(float(number))


def packed(sums: PriorSums) -> Float[Tensor, " values"]:
    return torch.cat([value.flatten() for value in sums])


def unpacked(values: Float[Tensor, " values"], like: PriorSums) -> PriorSums:
    parts = values.split([value.numel() for value in like])
    return PriorSums(*(part.view_as(value) for part, value in zip(parts, like, strict=True)))


@torch.no_grad()
def diagnose(
    auxiliary: AuxiliaryModel,
    images: Callable[[range], Images],
    count: int,
    group: Group,
    *,
    batch_size: int = 64,
    is_pixels: bool = True,
    advance: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Diagnostics on images (or latents) 0 ... count - 1. One rank computes each batch; every rank must call it."""
    pieces = batches(count, batch_size)
    like = sums_of(auxiliary, images(range(0, 1)))
    table = torch.zeros(len(pieces), len(packed(like)), dtype=torch.float64)
    with group.together("looking at the prior") as others:
        for piece in range(group.rank, len(pieces), group.world_size):
            others()
            table[piece] = packed(sums_of(auxiliary, images(pieces[piece])))
            advance(len(pieces[piece]))
    return diagnostics(unpacked(group.sum(table).sum(dim=0), like), is_pixels)


def sums_of(auxiliary: AuxiliaryModel, y: Images) -> PriorSums:
    posterior = auxiliary.encode(y)
    return prior_sums(y, auxiliary.decode(posterior.mean), posterior, auxiliary.spec.logvar_floor)


def diagnostics(sums: PriorSums, is_pixels: bool = True) -> dict[str, Any]:
    """The diagnostics, ready for a results file."""
    entries, images = sums.entries.item(), sums.images.item()
    nll = sums.nll.item() / entries
    mean, square, cube, fourth = (sums.z_powers / entries).tolist()
    variance = square - mean**2
    central = fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4
    observed = (sums.inside / entries).tolist()
    of_pixels = {
        "nll_bits_per_byte": nll / math.log(2) + math.log2(127.5),
        "psnr": sums.psnr.item() / images,
        "psnr_of_mean_error": psnr(sums.squared_error / entries).item(),
    }
    return {
        "images": int(images),
        "nll_nats": nll,
        **(of_pixels if is_pixels else {}),
        "kl_nats_per_image": sums.kl.sum().item() / images,
        "kl_nats_by_channel": (sums.kl / images).tolist(),
        "latent_entries": sums.latent.shape[1],
        "active_units": active_units(sums),
        "z_mean": mean,
        "z_variance": variance,
        "z_kurtosis": central / variance**2,
        "ence": ence(sums),
        "coverage_error": math.fsum(abs(a - b) for a, b in zip(observed, LEVELS, strict=True)) / len(LEVELS),
        "sigma_mean": sums.sigma[0].item() / entries,
        "sigma_geometric_mean": math.exp(0.5 * sums.logvar.item() / entries),
        "sigma_rms": math.sqrt(sums.sigma[1].item() / entries),
        "share_at_floor": sums.at_floor.item() / entries,
        "z_histogram": {"edges": Z_EDGES.tolist(), "counts": sums.z_histogram.tolist()},
        "coverage": {"nominal": LEVELS, "observed": observed},
        "calibration": calibration(sums),
    }


def active_units(sums: PriorSums) -> int:
    """Number of latent entries whose posterior mean varies between images by more than ACTIVE_VARIANCE."""
    mean, square = sums.latent / sums.images
    return int((square - mean.square() > ACTIVE_VARIANCE).sum())


def ence(sums: PriorSums) -> float:
    """ENCE, weighted by the number of entries in a bin, as bins have equal widths here, not equal sizes."""
    filled = sums.bin_count > 0
    count, error, variance = (
        values[filled] for values in (sums.bin_count, sums.bin_error, sums.bin_variance)
    )
    deviation = (variance / count).sqrt()
    off = ((error / count).sqrt() - deviation).abs() / deviation
    return ((off * count).sum() / count.sum()).item()


def calibration(sums: PriorSums) -> dict[str, list[float]]:
    """Predicted sigma, observed error and number of entries for each bin of sigma that is not empty."""
    filled = sums.bin_count > 0
    count = sums.bin_count[filled]
    return {
        "edges": SIGMA_EDGES.tolist(),
        "predicted": (sums.bin_variance[filled] / count).sqrt().tolist(),
        "observed": (sums.bin_error[filled] / count).sqrt().tolist(),
        "counts": count.tolist(),
    }
