"""Pictures kept with the numbers: tensors for the report (`pictures.safetensors`).

steps_<n>     the first images, generated from the same noise with n solver steps
reals         real images, for comparison with samples
photographs   some of them, with
prior_mean, prior_sigma, prior_draw, prior_result   the flow's (widened) prior, a draw of it, and the flow's image
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.gaussians import sample, widen
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Width
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.chain import Start

SHOWN = 12  # images of a row

Images = Float[Tensor, "batch channels height width"]


@torch.no_grad()
def step_pictures(pipeline: LeDiFlowPipeline, configs: list[SamplingConfig]) -> dict[str, Images]:
    return {f"steps_{config.steps}": pipeline(SHOWN, config).images.cpu() for config in configs}


@torch.no_grad()
def prior_pictures(
    auxiliary: AuxiliaryModel,
    latents: Images,
    *,
    flow: Callable[[Start], Images],
    decode: Callable[[Tensor], Tensor],
    seed: int,
    width: Width | None = None,
) -> dict[str, Images]:
    """The prior at the posterior's mean of photographs, a draw of it, and what the flow makes of the draw.

    `width` is the flow's: sigma and the draw are those of N(mu, (scale sigma)^2 + added^2).
    """
    z = auxiliary.encode(latents).mean
    decoded = auxiliary.decode(z)
    width = width or Width()
    prior = decoded._replace(logvar=widen(decoded.logvar, width.added, width.scale))
    ids = torch.arange(len(latents), device=latents.device)
    drawn = sample(prior.mean, prior.logvar, SampleNoise(seed).normal(ids, "prior", tuple(latents.shape[1:])))
    shown = {
        "photographs": latents,
        "prior_mean": prior.mean,
        "prior_draw": drawn,
        "prior_result": flow(Start(drawn, z, prior)),
    }
    sigma = {"prior_sigma": (0.5 * prior.logvar).exp().cpu()}
    return {name: decode(image).clamp(-1, 1).cpu() for name, image in shown.items()} | sigma
