"""What several stages draw for a batch: latents of its images or of a latent sampler, and keys of dropout masks.

A draw depends on the seed and on the sample's position in the run: it is the same in every stage, on any number of
ranks and after any restart, and an image has other draws in each epoch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.data.streams.stream import POSTERIOR
from lediflow.flow.gaussians import sample
from lediflow.flow.noise import Ids, SampleNoise
from lediflow.flow.solvers import jump, solve
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.nn.shapes import SampleKeys

# midpoint steps of a latent sampler, as in sampling by default (lediflow/sampling/options.py)
SAMPLER_STEPS = 4


@torch.no_grad()
def draw_latents(
    auxiliary: AuxiliaryModel, batch: Batch, noise: SampleNoise
) -> Float[Tensor, "batch latent_channels h w"]:
    """z ~ q(z|y), eq. 3; the encoder is conditioned on the augmentation of y, if any."""
    if batch.is_encoded:
        return batch.images
    posterior = auxiliary.encode(batch.images, augmentation=batch.augmentation)
    return sample(
        posterior.mean,
        posterior.logvar,
        noise.normal(batch.ids, POSTERIOR, tuple(posterior.mean.shape[1:])),
    )


@torch.no_grad()
def sampled_latents(
    sampler: nn.Module, shape: tuple[int, ...], noise: SampleNoise, ids: Ids, *, is_flow_map: bool
) -> Float[Tensor, "batch latent_channels h w"]:
    """Latents that a frozen latent sampler generates: by one jump of a flow map, by midpoint steps of a velocity.

    Their noise is not that of `lediflow.sample`, so that no generated image has a start that was trained on.
    """
    w = noise.normal(ids, "sampled latents", shape)

    def velocity(x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        found: Tensor = sampler(x, t) if s is None else sampler(x, t, s=s)
        return found.float()

    if is_flow_map:
        return jump(velocity, w, steps=1, is_checked=False).x
    return solve(velocity, w, solver="midpoint", steps=SAMPLER_STEPS, is_checked=False).x


def dropout_keys(has_dropout: bool, batch: Batch, noise: SampleNoise) -> dict[str, SampleKeys]:
    """Keyword arguments with the sample keys for a model with dropout; an empty dict for a model without."""
    return {"dropout": noise.words(batch.ids, "dropout")} if has_dropout else {}
