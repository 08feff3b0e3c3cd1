"""Latents of a batch from the frozen encoder; a sample's draw is the same in every stage and on any number of ranks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.data.streams.batch import Batch
from lediflow.data.streams.stream import POSTERIOR
from lediflow.flow.gaussians import sample
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import AuxiliaryModel


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
