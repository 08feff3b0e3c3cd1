"""Strength s of an edit: how much of the noise is drawn anew, from 0 (the photograph's own) to 1 (all of it).

    noise = sqrt(1 - s^2) own + s fresh

If both are draws of N(0, I), so is their mix: its squared norm stays d on average, which the models were trained on. A
sum own + s fresh, or a linear interpolation, would be too long, or too short. The photograph's own noise is found by
the reverse ODEs: w of its z by the latent sampler's, and (x - mean(z)) / sigma(z) by the flow's, which gives x.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.editing.inversion import (
    Inverted,
    Latents,
    data_to_start,
    encoded,
    latents_to_noise,
    noise_to_latents,
)
from lediflow.flow.noise import SampleNoise
from lediflow.models.specs import latent_shape
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.chain import Start
from lediflow.sampling.options import SamplingConfig

Images = Float[Tensor, "batch channels height width"]


class Own(NamedTuple):
    """What the models make a photograph from: its z, and the noise that was asked for."""

    z: Latents
    inverted: dict[str, Inverted]  # w of the latent sampler and x of the flow, by these letters
    x_noise: Images | None = None  # (x - mean(z)) / sigma(z), which is N(0, I) for draws of the prior

    def round_trips(self, image: int = 0) -> dict[str, dict[str, float]]:
        """The errors of the ways to the noise and back, for edit.json."""
        return {name: inverted.record(image) for name, inverted in self.inverted.items()}

    def warnings(self, name: str, threshold: float) -> list[str]:
        """A sentence for each way of a single image whose error exceeds the threshold."""
        return [
            sentence
            for inverted in self.inverted.values()
            for sentence in inverted.warnings([name], threshold)
        ]


def mix_noise(
    own: Float[Tensor, "*#shape"], fresh: Float[Tensor, "*#shape"], strength: float
) -> Float[Tensor, "*shape"]:
    """sqrt(1 - s^2) own + s fresh: `own` exactly at s = 0, `fresh` exactly at s = 1. ValueError beyond [0, 1]."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must be from 0 (nothing is drawn anew) to 1 (everything is)")
    return math.sqrt(1 - strength**2) * own + strength * fresh


def drawn_noise(pipeline: LeDiFlowPipeline, ids: Tensor, seed: int) -> Latents:
    """w of the numbered images that are sampled with this seed."""
    assert pipeline.auxiliary is not None
    shape = latent_shape(pipeline.auxiliary.spec, pipeline.image_size, pipeline.image_size)
    return SampleNoise(seed).normal(ids, "latent noise", shape)


@torch.no_grad()
def own_of(
    pipeline: LeDiFlowPipeline,
    images: Images,
    config: SamplingConfig,
    parts: str,
    z: Latents | None = None,
) -> Own:
    """What the models make images from; `parts` names the noise that is needed: "", "w", "x" or "xw".

    x belongs to a z: the images' own, or the given one.
    """
    z, inverted, x_noise = encoded(pipeline, images) if z is None else z, {}, None
    if "x" in parts:
        inverted["x"] = data_to_start(pipeline, images, z, config)
        prior = pipeline.prior(z)
        x_noise = (inverted["x"].noise - prior.mean) * torch.exp(-prior.logvar / 2)
    if "w" in parts:
        inverted["w"] = latents_to_noise(pipeline, z, config.latent_method(is_flow_map=False))
    return Own(z, inverted, x_noise)


@torch.no_grad()
def mixed_latents(
    pipeline: LeDiFlowPipeline, own: Own, ids: Tensor, config: SamplingConfig, strength: float
) -> Latents:
    """Latents for each number, of the photograph's own w mixed with fresh draws; at strength 1 as in sampling."""
    if strength == 1:
        return pipeline.latents(ids, config)
    w = mix_noise(own.inverted["w"].noise, drawn_noise(pipeline, ids, config.seed), strength)
    return noise_to_latents(pipeline, w, config.latent_method(is_flow_map=False))


def mixed_start(start: Start, own: Own, strength: float) -> Start:
    """The start with x of mixed noise; at strength 1 unchanged, at 0 that of the photograph.

    The temperature of the start's fresh draw applies to that alone.
    """
    if strength == 1:
        return start
    assert start.prior is not None and own.x_noise is not None
    mean, sigma = start.prior.mean, torch.exp(start.prior.logvar / 2)
    return start._replace(x=mean + mix_noise(sigma * own.x_noise, start.x - mean, strength))
