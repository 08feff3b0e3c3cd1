"""Tensors worth looking at, kept beside the numbers: `pictures.safetensors`.

steps_<n>     the first images, made from the same noise with n solver steps
reals         real images, to hold beside samples
photographs   some of them, with
prior_mean, prior_sigma, prior_draw   the learned prior of each photograph, and one draw from it
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.gaussians import sample
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

SHOWN = 12  # images of a row

Images = Float[Tensor, "batch channels height width"]


@torch.no_grad()
def step_pictures(pipeline: LeDiFlowPipeline, configs: list[SamplingConfig]) -> dict[str, Images]:
    return {f"steps_{config.steps}": pipeline(SHOWN, config).images.cpu() for config in configs}


@torch.no_grad()
def prior_pictures(
    auxiliary: AuxiliaryModel, latents: Images, decode: Callable[[Tensor], Tensor], seed: int
) -> dict[str, Images]:
    """What the auxiliary model makes of photographs: their posterior's mean, decoded to the prior."""
    prior = auxiliary.decode(auxiliary.encode(latents).mean)
    ids = torch.arange(len(latents), device=latents.device)
    drawn = sample(prior.mean, prior.logvar, SampleNoise(seed).normal(ids, "prior", tuple(latents.shape[1:])))
    pictures = {"photographs": decode(latents), "prior_mean": decode(prior.mean), "prior_draw": decode(drawn)}
    return {name: image.clamp(-1, 1).cpu() for name, image in pictures.items()} | {
        "prior_sigma": (0.5 * prior.logvar).exp().cpu()
    }
