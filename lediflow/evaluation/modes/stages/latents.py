"""Latents z of real images, images generated from them, and measurements of the auxiliary model on them.

Image i starts from the prior of z ~ q(z | y), y being the real image number i modulo their number. Its noise in the
prior is that of image i of any other source (`GeneratedImages`), so that the noise cancels in differences. If there are
fewer real images than i, an image gives several draws of z, each with noise of its own.

Measured on the images of a split: VGL (eq. 4 of arXiv:2505.20723, without 1/2 log 2 pi, at a draw z ~ q(z | y) as in
training), KL(q(z | y) || N(0, I)) in nats per image and per latent entry, typical sigma and residual (geometric means,
as in `flow/widening.py`), moments of z. They are sums over images, each batch computed by one rank, and so independent
of the number of ranks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.engine.group import Group
from lediflow.evaluation.images import ShardImages, sampling_record
from lediflow.flow.gaussians import sample
from lediflow.flow.losses import gaussian_kl, variance_guided_loss
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import log_spreads
from lediflow.models.auxiliary import Posterior
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.options import batches
from lediflow.sampling.pipeline import Generated

Numbers = Int64[np.ndarray, " images"]
Ids = Int64[Tensor, " batch"]
Latents = Float[Tensor, "batch channels h w"]
Vector = Float[Tensor, " values"]


class RealLatents:
    """Draws of the encoder's posterior, indexed by the number of the image to generate."""

    def __init__(self, pipeline: LeDiFlowPipeline, signals: ShardImages, seed: int) -> None:
        self.pipeline, self.signals, self.noise = pipeline, signals, SampleNoise(seed)

    def sources(self, count: int) -> Numbers:
        """Which real sample each of the first `count` images comes from."""
        return self.signals.samples[np.arange(count) % len(self.signals)]

    @torch.no_grad()
    def posterior(self, y: Float[Tensor, "batch channels height width"]) -> Posterior:
        assert self.pipeline.auxiliary is not None
        return self.pipeline.auxiliary.encode(y)

    def draw(self, posterior: Posterior, ids: Int64[Tensor, " batch"]) -> Float[Tensor, "batch channels h w"]:
        noise = self.noise.normal(ids, "posterior", tuple(posterior.mean.shape[1:]))
        return sample(posterior.mean, posterior.logvar, noise)

    def __call__(self, ids: Int64[Tensor, " batch"]) -> Float[Tensor, "batch channels h w"]:
        """z of the images with these numbers."""
        places = [int(number) % len(self.signals) for number in ids.tolist()]
        y = self.signals.numbered(places)
        return self.draw(self.posterior(y), ids)


class ImagesFromReal:
    """Images generated from `RealLatents`; `models` identifies the flow and the auxiliary model."""

    def __init__(
        self, latents: RealLatents, config: SamplingConfig, count: int, models: dict[str, Any]
    ) -> None:
        self.latents, self.config, self.count = latents, config, count
        asked = sampling_record(latents.pipeline, config)
        used = {name: value for name, value in asked.items() if not name.startswith("latent_")}
        sources = hashlib.sha256(latents.sources(count).tobytes()).hexdigest()
        self.record = {
            "models": models,
            "sampling": used,
            "z": latents.signals.record | {"sources": sources},
        }

    def __len__(self) -> int:
        return self.count

    def __call__(self, numbers: range) -> Float[Tensor, "batch channels height width"]:
        return self.generated(numbers).images

    @torch.no_grad()
    def generated(self, numbers: range) -> Generated:
        pipeline = self.latents.pipeline
        ids = torch.arange(numbers.start, numbers.stop, device=pipeline.device)
        start = pipeline.start_from(ids, self.latents(ids), self.config)
        solution = pipeline.integrate(start, self.config)
        return Generated(pipeline.decode(solution.x).clamp(-1, 1), start, solution.nfe)


class LatentMoments(NamedTuple):
    """Mean and variance of z over images, for each entry."""

    mean: Float[Tensor, "channels h w"]
    variance: Float[Tensor, "channels h w"]

    def summary(self) -> dict[str, Any]:
        """Means over the entries, for a results file; mean 0 and variance 1 where z ~ N(0, I)."""
        return {
            "mean": self.mean.mean().item(),
            "variance": self.variance.mean().item(),
            "mean_square": (self.mean.square() + self.variance).mean().item(),
            "mean_by_channel": self.mean.mean(dim=(1, 2)).tolist(),
            "variance_by_channel": self.variance.mean(dim=(1, 2)).tolist(),
        }


class PriorFacts(NamedTuple):
    """Measurements on a split, as the results keep them, and the moments of its z."""

    summary: dict[str, Any]
    moments: LatentMoments


@torch.no_grad()
def prior_facts(
    latents: RealLatents,
    group: Group,
    batch_size: int,
    advance: Callable[[int], None] = lambda images: None,
) -> PriorFacts:
    """Measure the auxiliary model on each real image of `latents` once. Every rank must call it."""
    auxiliary = latents.pipeline.auxiliary
    assert auxiliary is not None
    device = latents.pipeline.device

    def sums_for(numbers: range) -> Vector:
        y = latents.signals.numbered(numbers)
        ids = torch.arange(numbers.start, numbers.stop, device=device)
        posterior = latents.posterior(y)
        z = latents.draw(posterior, ids)
        prior = auxiliary.decode(z)
        vgl = variance_guided_loss(y.double(), prior.mean.double(), prior.logvar.double())
        kl = entry_kl(posterior.mean, posterior.logvar)
        spreads = log_spreads(y, prior.mean, prior.logvar).sum(dim=0)
        scalars = [vgl.sum(), vgl.square().sum(), *spreads]
        return torch.cat([torch.stack(scalars).cpu(), kl.flatten().cpu(), sums_of(z)])

    count = len(latents.signals)
    summed = sum_over_batches(sums_for, count, group, batch_size, advance)
    shape = tuple(latents.posterior(latents.signals.numbered(range(1))).mean.shape[1:])
    kl = summed[4 : 4 + math.prod(shape)].reshape(shape) / count
    powers = summed[4 + math.prod(shape) :]
    vgl = summed[0].item() / count
    spread = max(summed[1].item() / count - vgl**2, 0.0)
    summary = {
        "images": count,
        "vgl": vgl,
        "vgl_standard_error": math.sqrt(spread / max(count - 1, 1)),
        "kl_nats_per_image": kl.sum().item(),
        "kl_nats_by_channel": kl.sum(dim=(1, 2)).tolist(),
        "kl_nats_by_place": kl.sum(dim=0).tolist(),
        "sigma_geometric_mean": math.exp(summed[2].item() / count),
        "residual_geometric_mean": math.exp(summed[3].item() / count),
    }
    return PriorFacts(summary, moments_of(powers, count, shape))


@torch.no_grad()
def latent_moments(
    draw: Callable[[Ids], Latents],
    count: int,
    device: torch.device,
    group: Group,
    batch_size: int,
) -> LatentMoments:
    """Moments of latents 0 ... count - 1, where `draw` makes z of given ids. Every rank must call it."""

    def sums_for(numbers: range) -> Vector:
        return sums_of(draw(torch.arange(numbers.start, numbers.stop, device=device)))

    shape = tuple(draw(torch.arange(1, device=device)).shape[1:])
    return moments_of(sum_over_batches(sums_for, count, group, batch_size), count, shape)


def entry_kl(mean: Latents, logvar: Latents) -> Float[Tensor, "channels h w"]:
    """`gaussian_kl` of each latent entry, summed over the batch."""
    entries = gaussian_kl(mean.double().reshape(-1, 1), logvar.double().reshape(-1, 1))
    return entries.reshape(mean.shape).sum(dim=0)


def compare_moments(sampler: LatentMoments, encoder: LatentMoments) -> dict[str, float]:
    """Shift (0 where equal) and variance ratio (1 where equal) of the sampler's z against the encoder's draws."""
    shift = (sampler.mean - encoder.mean) / encoder.variance.sqrt()
    ratio = (sampler.variance / encoder.variance).log().mean().exp()
    return {
        "shift_in_deviations": shift.square().mean().sqrt().item(),  # root mean square
        "variance_ratio": ratio.item(),  # geometric mean
    }


def sums_of(z: Latents) -> Vector:
    z = z.double()
    return torch.cat([z.sum(dim=0).flatten(), z.square().sum(dim=0).flatten()]).cpu()


def moments_of(powers: Vector, count: int, shape: tuple[int, ...]) -> LatentMoments:
    first, second = (powers / count).reshape(2, *shape)
    variance = (second - first.square()).clamp(min=0) * count / max(count - 1, 1)
    return LatentMoments(first, variance)


def sum_over_batches(
    sums_for: Callable[[range], Vector],
    count: int,
    group: Group,
    batch_size: int,
    advance: Callable[[int], None] = lambda images: None,
) -> Vector:
    """Sum of `sums_for` over images 0 ... count - 1. One rank computes each batch; the order of addition is fixed."""
    pieces = batches(count, batch_size)
    table: Float[Tensor, "pieces values"] | None = None
    with group.together("looking at latents") as others:
        for piece in range(group.rank, len(pieces), group.world_size):
            others()
            found = sums_for(pieces[piece])
            table = torch.zeros(len(pieces), len(found), dtype=torch.float64) if table is None else table
            table[piece] = found
            advance(len(pieces[piece]))
    length = max(
        0 if part is None else part for part in group.all_gather(None if table is None else table.shape[1])
    )
    if table is None:
        table = torch.zeros(len(pieces), length, dtype=torch.float64)
    return group.sum(table).sum(dim=0)
