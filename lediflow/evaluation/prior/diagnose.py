"""From sums over real images to the diagnostics of a learned prior.

nll              -log p(y | z) at the posterior's mean z, per entry: in nats, and for pixels in bits per byte
z                (y - mu) / sigma: mean 0, variance 1, kurtosis 3 if the prior is right and Gaussian
ence             expected normalised calibration error (Levi et al. 2019, arXiv:1905.11659): over bins of sigma, how far
                 the root mean squared error is from the root mean variance, relative to the latter
coverage_error   mean over levels of |observed - nominal| share of entries within central intervals (Kuleshov et al.
                 2018, arXiv:1807.00263)
sharpness        mean, root mean square, geometric mean of sigma: of two calibrated priors the sharper one leaves less
                 to the flow
psnr             of the prior's mean as a reconstruction, mean over images in dB
active_units     latent entries whose posterior mean varies between images, variance above 0.01 (Burda et al. 2016,
                 arXiv:1509.00519); the others tell the decoder nothing
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.prior.sums import (
    LEVELS,
    SIGMA_EDGES,
    Z_EDGES,
    PriorSums,
    packed,
    prior_sums,
    psnr,
    unpacked,
)
from lediflow.models.auxiliary import AuxiliaryModel

ACTIVE_VARIANCE = 0.01
Images = Float[Tensor, "batch channels height width"]


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
    """Of images (or latents) 0 ... count - 1; a batch is one rank's, so that the number of ranks changes nothing."""
    pieces = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
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
    """Ready for a results file."""
    entries, images = sums.entries.item(), sums.images.item()
    nll = sums.nll.item() / entries
    mean, square, cube, fourth = (sums.z_powers / entries).tolist()
    variance = square - mean**2
    central = fourth - 4 * mean * cube + 6 * mean**2 * square - 3 * mean**4
    observed = (sums.inside / entries).tolist()
    byte = {"nll_bits_per_byte": nll / math.log(2) + math.log2(127.5)} if is_pixels else {}
    return {
        "images": int(images),
        "nll_nats": nll,
        **byte,
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
        "psnr": sums.psnr.item() / images,
        "psnr_of_mean_error": psnr(sums.squared_error / entries).item(),
        "z_histogram": {"edges": Z_EDGES.tolist(), "counts": sums.z_histogram.tolist()},
        "coverage": {"nominal": LEVELS, "observed": observed},
        "calibration": calibration(sums),
    }


def active_units(sums: PriorSums) -> int:
    """Number of latent entries whose posterior mean varies between images by more than ACTIVE_VARIANCE."""
    mean, square = sums.latent / sums.images
    return int((square - mean.square() > ACTIVE_VARIANCE).sum())


def ence(sums: PriorSums) -> float:
    """Weighted by the number of entries in a bin: bins are of equal width here, not of equal size."""
    filled = sums.bin_count > 0
    count, error, variance = (
        values[filled] for values in (sums.bin_count, sums.bin_error, sums.bin_variance)
    )
    deviation = (variance / count).sqrt()
    off = ((error / count).sqrt() - deviation).abs() / deviation
    return ((off * count).sum() / count.sum()).item()


def calibration(sums: PriorSums) -> dict[str, list[float]]:
    """Of each bin of sigma that has entries: what the prior said, what the error was, and of how many."""
    filled = sums.bin_count > 0
    count = sums.bin_count[filled]
    return {
        "edges": SIGMA_EDGES.tolist(),
        "predicted": (sums.bin_variance[filled] / count).sqrt().tolist(),
        "observed": (sums.bin_error[filled] / count).sqrt().tolist(),
        "counts": count.tolist(),
    }
