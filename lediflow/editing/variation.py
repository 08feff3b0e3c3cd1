"""Other versions of an image: the same z with other draws x of its prior, or the same x with other z.

keep=z  what the encoder sees of the image stays; x is drawn anew from p(. | z): details differ.
keep=x  x is where the flow starts: the image is mapped back to it by the flow's reverse ODE, with the image's own z.
        Then the flow runs from this x with latents that the latent sampler draws: what x alone decides stays.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.editing.inversion import encoded
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.pipeline import Start

Images = Float[Tensor, "batch channels height width"]


class Varied(NamedTuple):
    """Images in [-1, 1], and the evaluations of the flow for each."""

    images: Images
    nfe: int


@torch.no_grad()
def with_latent_of(
    pipeline: LeDiFlowPipeline,
    image: Float[Tensor, "1 channels height width"],
    ids: Tensor,
    config: SamplingConfig,
) -> Varied:
    """An image for each number, from the z of the given image."""
    z = encoded(pipeline, image).repeat(len(ids), 1, 1, 1)
    return finished(pipeline, pipeline.start_from(ids, z, config), config)


@torch.no_grad()
def with_start(
    pipeline: LeDiFlowPipeline,
    x: Float[Tensor, "1 channels height width"],
    ids: Tensor,
    config: SamplingConfig,
) -> Varied:
    """An image for each number, from x and the z that the latent sampler draws for the number."""
    drawn = pipeline.start_from(ids, pipeline.latents(ids, config), config)
    return finished(pipeline, drawn._replace(x=x.repeat(len(ids), 1, 1, 1)), config)


def finished(pipeline: LeDiFlowPipeline, start: Start, config: SamplingConfig) -> Varied:
    solution = pipeline.integrate(start, config)
    return Varied(pipeline.decode(solution.x).clamp(-1, 1), solution.nfe)
