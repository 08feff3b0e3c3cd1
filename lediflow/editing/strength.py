"""Strength s of an edit: how much of the noise is drawn anew, from 0 (the photograph's own) to 1 (all of it).

    noise = sqrt(1 - s^2) own + s fresh

If both are draws of N(0, I), so is their mix: its squared norm stays d on average, which the models were trained on. A
sum own + s fresh, or a linear interpolation, would be too long, or too short. The photograph's own noise is found by
the reverse ODEs: w of its z by the latent sampler's, and x, (x - mean) / sigma as noise, by the flow's.
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
from lediflow.sampling.options import SamplingConfig
from lediflow.sampling.pipeline import Start

Images = Float[Tensor, "batch channels height width"]


class MixedLatents(NamedTuple):
    """Latents of a strength, and how the own noise was found (None at strength 1, which needs none)."""

    z: Latents
    inverted: Inverted | None


class OwnNoise(NamedTuple):
    """(x - mean(z)) / sigma(z) of images, which is N(0, I) for draws of the prior, and how x was found."""

    noise: Images
    inverted: Inverted


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
def mixed_latents(
    pipeline: LeDiFlowPipeline, z: Latents, ids: Tensor, config: SamplingConfig, strength: float
) -> MixedLatents:
    """Latents for each number: w of `z` (of one image, or of one for each number) mixed with fresh draws.

    At strength 1 they are those that `lediflow.sample` draws, and nothing is inverted.
    """
    if strength == 1:
        return MixedLatents(pipeline.latents(ids, config), None)
    method = config.latent_method(is_flow_map=False)
    found = latents_to_noise(pipeline, z, method)
    w = mix_noise(found.noise, drawn_noise(pipeline, ids, config.seed), strength)
    return MixedLatents(noise_to_latents(pipeline, w, method), found)


@torch.no_grad()
def own_noise(pipeline: LeDiFlowPipeline, images: Images, config: SamplingConfig) -> OwnNoise:
    """The noise of images in [-1, 1] (latents, with a codec), by the flow's reverse ODE with their own z."""
    back = data_to_start(pipeline, images, config)
    prior = pipeline.prior(encoded(pipeline, images))
    return OwnNoise((back.noise - prior.mean) * torch.exp(-prior.logvar / 2), back)


def start_near(start: Start, own: Images, strength: float) -> Start:
    """The start with x of mixed noise; strength 1 leaves it, 0 gives the images that `own` is the noise of.

    The temperature of the start's fresh draw applies to that alone.
    """
    assert start.prior is not None
    mean, sigma = start.prior.mean, torch.exp(start.prior.logvar / 2)
    return start._replace(x=mean + mix_noise(sigma * own, start.x - mean, strength))
