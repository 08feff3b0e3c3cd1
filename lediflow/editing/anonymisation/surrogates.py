"""A surrogate for a face: w of the person -> z by the latent sampler -> new pixels inside the mask by eq. 7.

    w' = sqrt(1 - s^2) w_face + s w_key        s = strength

w_key is standard normal and a function of (key, person, seed). At s = 1 nothing of the face enters: its pixels are
neither encoded nor known to eq. 7. Below 1, w_face is the face's own noise (z by the encoder, w by the latent sampler's
reverse ODE), and for small s, w' is the paper's w plus a small random vector. Both terms have unit variance under the
model, and so has w': it stays as likely as a draw.

Outside of the mask, z is that of the visible pixels, so that light, hair and background continue: a cell of z is mixed
by the share of it that the mask covers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lediflow.codecs import bytes_to_signal, signal_to_bytes
from lediflow.editing.anonymisation.faces import Face, Pixels, pasted, seen, seen_without
from lediflow.editing.anonymisation.keys import Key
from lediflow.editing.inpainting import Amount, integrated, latents_of_known
from lediflow.editing.inversion import Inverted, encoded, latents_to_noise, noise_to_latents
from lediflow.editing.strength import mix_noise
from lediflow.models.specs import latent_shape
from lediflow.sampling import LeDiFlowPipeline
from lediflow.sampling.options import SamplingConfig

Noise = Float[Tensor, "1 latent_channels h w"]


class View(NamedTuple):
    """What the models get: a picture of their size without the hidden part, M of eq. 7 (0 or 1), and the whole picture.

    The whole is only used below strength 1.
    """

    known: UInt8[Tensor, "channels height width"]
    amount: Amount
    whole: UInt8[Tensor, "channels height width"]


class Surrogate(NamedTuple):
    """New pixels of the models' size; `own` is the inversion of the face, None at strength 1."""

    pixels: UInt8[Tensor, "channels height width"]
    own: Inverted | None
    nfe: int
    line_error: float  # see Inpainted


def replace_faces(
    pipeline: LeDiFlowPipeline,
    pixels: Pixels,
    faces: list[Face],
    persons: list[str],
    key: Key,
    strength: float,
    config: SamplingConfig,
) -> tuple[Pixels, list[Surrogate]]:
    """A photograph with a surrogate for each face, of the person with the same place in the list.

    No face is context of another: all are hidden from each.
    """
    if not faces:
        return pixels, []
    hidden, size = np.max([face.levels for face in faces], axis=0), pipeline.image_size
    result, surrogates = pixels, []
    for face, person in zip(faces, persons, strict=True):
        known, amount = seen_without(pixels, hidden, face.square, size)
        view = View(known, amount, seen(pixels, face.square, size))
        surrogates.append(surrogate(pipeline, view, key, person, strength, config))
        result = pasted(result, face, surrogates[-1].pixels)
    return result, surrogates


@torch.no_grad()
def surrogate(
    pipeline: LeDiFlowPipeline,
    view: View,
    key: Key,
    person: str,
    strength: float,
    config: SamplingConfig,
) -> Surrogate:
    """Replace the hidden part of a view by the person's surrogate."""
    assert pipeline.auxiliary is not None
    device, seed = pipeline.device, config.seed
    method = config.latent_method(is_flow_map=False)
    shape = latent_shape(pipeline.auxiliary.spec, pipeline.image_size, pipeline.image_size)
    w, own = key.noise(person, seed, shape)[None].to(device), None
    if strength < 1:
        own = latents_to_noise(pipeline, encoded(pipeline, bytes_to_signal(view.whole)[None]), method)
        w = mix_noise(own.noise, w, strength)
    z, amount = noise_to_latents(pipeline, w, method), view.amount.to(device)
    known = bytes_to_signal(view.known.to(device))[None]
    if not amount.all():
        inside = adaptive_avg_pool2d(amount, (z.shape[-2], z.shape[-1]))
        z = torch.lerp(latents_of_known(pipeline, known, amount), z, inside)
    start = pipeline.start_from(torch.tensor([key.number(person, seed)], device=device), z, config)
    if amount.all():
        solution = pipeline.integrate(start, config)
        return Surrogate(signal_to_bytes(solution.x)[0].cpu(), own, solution.nfe, 0.0)
    made = integrated(pipeline, start, known, amount, config, view.known)
    return Surrogate(made.pixels[0].cpu(), own, made.nfe, made.line_error)
