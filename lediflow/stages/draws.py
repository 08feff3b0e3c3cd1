"""What several stages draw for a batch: latents of its images or of a latent sampler, classes, keys of dropout masks.

Class-conditional models get the null class for a fraction of the images, so that sampling can use classifier-free
guidance (Ho & Salimans, arXiv:2207.12598).

A draw depends on the seed and on the sample's position in the run: it is the same in every stage, on any number of
ranks and after any restart, and an image has other draws in each epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lediflow.data.streams.batch import Batch
from lediflow.data.streams.stream import POSTERIOR
from lediflow.errors import UserError
from lediflow.flow.gaussians import sample
from lediflow.flow.noise import Ids, SampleNoise
from lediflow.flow.solvers import jump, solve
from lediflow.models.auxiliary import AuxiliaryModel
from lediflow.models.specs import LATENT_JUMPS, LATENT_STEPS
from lediflow.nn.shapes import SampleKeys
from lediflow.ranges import bounded


@dataclass(kw_only=True)
class LabelConfig:
    """Options of a stage whose model can be conditioned on classes."""

    # fraction of images trained without their class, which classifier-free guidance needs
    label_dropout: float = bounded(0.1, at_least=0, at_most=1)


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
    sampler: nn.Module,
    shape: tuple[int, ...],
    noise: SampleNoise,
    ids: Ids,
    *,
    is_flow_map: bool,
    labels: Int64[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch latent_channels h w"]:
    """Latents that a frozen latent sampler generates: by one jump of a flow map, by midpoint steps of a velocity.

    Their noise is not that of `lediflow.sample`, so that no generated image has a latent that was trained on.
    """
    w = noise.normal(ids, "sampled latents", shape)
    given = {} if labels is None else {"labels": labels}

    def velocity(x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        found: Tensor = sampler(x, t, **given) if s is None else sampler(x, t, s=s, **given)
        return found.float()

    if is_flow_map:
        return jump(velocity, w, steps=LATENT_JUMPS, is_checked=False).x
    return solve(velocity, w, solver="midpoint", steps=LATENT_STEPS, is_checked=False).x


def drawn_labels(
    batch: Batch, noise: SampleNoise, *, num_classes: int, label_dropout: float, key: str
) -> Int64[Tensor, " batch"] | None:
    """Each image's class, or `num_classes`, the null class, where it is dropped; None for a model without classes.

    `key` is the model's in the configuration. UserError for data without labels.
    """
    if not num_classes:
        return None
    if batch.labels is None:
        raise UserError(
            f"{key}.num_classes={num_classes}, but the data has no labels; use 0, or data with them"
        )
    is_dropped = noise.uniform(batch.ids, "label dropout") < label_dropout
    return batch.labels.masked_fill(is_dropped, num_classes)


def dropout_keys(has_dropout: bool, batch: Batch, noise: SampleNoise) -> dict[str, SampleKeys]:
    """Keyword arguments with the sample keys for a model with dropout; an empty dict for a model without."""
    return {"dropout": noise.words(batch.ids, "dropout")} if has_dropout else {}
