"""What several stages draw for a batch: latents, and keys of dropout masks.

A draw depends on the seed and on the sample's position in the run: it is the same in every stage, on any number of
ranks and after any restart, and an image has other draws in each epoch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.data.streams.batch import Batch
from lediflow.data.streams.stream import POSTERIOR
from lediflow.flow.gaussians import sample
from lediflow.flow.noise import SampleNoise
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.nn.shapes import SampleKeys


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


def dropout_keys(has_dropout: bool, batch: Batch, noise: SampleNoise) -> dict[str, SampleKeys]:
    """Keyword arguments with the sample keys for a model with dropout; an empty dict for a model without."""
    return {"dropout": noise.words(batch.ids, "dropout")} if has_dropout else {}
