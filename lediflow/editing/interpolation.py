"""Frames between two images or two seeds, by three ways, as in Figure 5 of arXiv:2505.20723 (the first two).

w, linear       the ends' noise w on a straight line, each point mapped to z by the latent sampler
z, linear       the ends' latents on a straight line
w, spherical    the noise on an arc, which keeps its norm (a point near 0 is not a likely draw of N(0, I))

All frames start the flow from the prior of their z with the same noise, so they differ by z alone.

Numbers of each frame, in nats per dimension, the lower the more likely:
w_nll      -log N(w; 0, I), of the frame's noise; on the way through z, of the noise that its z is mapped back to
prior_nll  -log p(y | z) of the frame y under its learned prior: large where the flow had to leave it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.editing.inversion import noise_of_latents, noise_to_latents
from lediflow.editing.strength import drawn_noise
from lediflow.errors import UserError
from lediflow.flow.gaussians import gaussian_log_density
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import SamplingConfig

WAYS = ("w, linear", "z, linear", "w, spherical")
PARALLEL = 1e-6  # vectors whose angle (or its supplement) is below this, in radians

Vectors = Float[Tensor, " 2 *dims"]
Path = Float[Tensor, " frames *dims"]


class Ends(NamedTuple):
    """Noise and latents of the two ends."""

    w: Vectors
    z: Vectors


class Frames(NamedTuple):
    """Images in [-1, 1] of one way, and their numbers."""

    images: Float[Tensor, "frames channels height width"]
    numbers: dict[str, list[float]]
    nfe: int


def linear(ends: Vectors, frames: int) -> Path:
    """Points at equal distances on the line between the two, which are the first and the last point exactly."""
    share = shares(ends, frames)
    return torch.lerp(
        ends[:1].expand(frames, *ends.shape[1:]), ends[1:].expand(frames, *ends.shape[1:]), share
    )


def spherical(ends: Vectors, frames: int) -> Path:
    """Points at equal angles on the arc between the two: (sin((1-s) a) first + sin(s a) last) / sin(a).

    Vectors of one direction are interpolated linearly, the limit for small a. UserError for opposite ones: the arcs
    between them are equally long in all directions.
    """
    first, last = ends.double().flatten(1)
    cosine = (first @ last / (first.norm() * last.norm())).clamp(-1, 1)
    angle = torch.acos(cosine)
    if not angle > PARALLEL:  # also for NaN, of a vector of norm 0
        return linear(ends, frames)
    if torch.pi - angle < PARALLEL:
        raise UserError(
            "path=spherical: the two ends are opposite, so no arc is the shortest; use path=linear"
        )
    share = shares(ends, frames).double()
    arc = (torch.sin((1 - share) * angle) * ends[:1] + torch.sin(share * angle) * ends[1:]) / torch.sin(angle)
    arc[0], arc[-1] = ends[0], ends[1]
    return arc.to(ends.dtype)


def shares(ends: Vectors, frames: int) -> Float[Tensor, " frames *ones"]:
    """0 ... 1 for each frame, with axes to broadcast."""
    share = torch.linspace(0, 1, frames, device=ends.device, dtype=ends.dtype)
    return share.reshape(-1, *(1,) * (ends.ndim - 1))


def noise_of_seeds(pipeline: LeDiFlowPipeline, seeds: list[int]) -> Vectors:
    """w of the first image that is sampled with each seed."""
    first = torch.zeros(1, dtype=torch.int64, device=pipeline.device)
    return torch.cat([drawn_noise(pipeline, first, seed) for seed in seeds])


def frame_labels(ends: Sequence[Mapping[str, Any]], frames: int) -> list[str]:
    """A label for each frame: its number, and for the first and the last one of which seed or photograph it is."""
    first, last = (
        f"seed {end['seed']}" if "seed" in end else f"version of {name}"
        for name, end in zip("AB", ends, strict=True)
    )
    return [first, *(f"frame {number}" for number in range(1, frames - 1)), last]


@torch.no_grad()
def frames_along(
    pipeline: LeDiFlowPipeline, ends: Ends, way: str, frames: int, config: SamplingConfig, batch_size: int
) -> Frames:
    """The frames of one of WAYS. UserError for another way: latents have no norm that an arc could keep."""
    if way not in WAYS:
        raise UserError(f"frames are not made by {way!r}; use one of {'; '.join(WAYS)}")
    method = config.latent_method(is_flow_map=False)
    if way == "z, linear":
        z = linear(ends.z, frames)
        w = torch.cat([noise_of_latents(pipeline, part, method) for part in z.split(batch_size)])
    else:
        w = (linear if way == "w, linear" else spherical)(ends.w, frames)
        z = torch.cat([noise_to_latents(pipeline, part, method) for part in w.split(batch_size)])
    images, prior_nll, nfe = images_of(pipeline, z, config, batch_size)
    norm = w.flatten(1).norm(dim=1)
    numbers = {
        "w_nll": -gaussian_log_density(w, torch.zeros_like(w), torch.zeros_like(w)) / w[0].numel(),
        "w_norm": norm,
        "prior_nll": prior_nll,
    }
    return Frames(images, {name: values.tolist() for name, values in numbers.items()}, nfe)


def images_of(
    pipeline: LeDiFlowPipeline, z: Path, config: SamplingConfig, batch_size: int
) -> tuple[Float[Tensor, "frames channels height width"], Float[Tensor, " frames"], int]:
    """The image of each z from one common noise, -log p(y | z) per dimension, and the evaluations of the flow."""
    images, nll, nfe = [], [], 0
    for part in z.split(batch_size):
        start = pipeline.start_from(
            torch.zeros(len(part), dtype=torch.int64, device=part.device), part, config
        )
        solution = pipeline.integrate(start, config)
        assert start.prior is not None
        density = gaussian_log_density(solution.x, start.prior.mean, start.prior.logvar)
        images.append(pipeline.decode(solution.x).clamp(-1, 1))
        nll.append(-density / solution.x[0].numel())
        nfe = max(nfe, solution.nfe)
    return torch.cat(images), torch.cat(nll), nfe
