"""The models that generate pictures, the fixed images that they start from, and how their results are shown as bytes.

Models are called with COLUMNS images at a time, however many a picture has, so that kernels are compiled for one batch
size and the memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from einops import repeat
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import Batch, Quarantine, StoredBatch, load_samples, ready
from lediflow.data.streams.order import samples_of, spread_over
from lediflow.flow.gaussians import sample
from lediflow.flow.noise import SampleNoise
from lediflow.flow.widening import Width
from lediflow.models.auxiliary import AuxiliaryModel, Latent, Prior
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.nn.shapes import Image
from lediflow.sampling import SamplingConfig
from lediflow.sampling.chain import Chain, Start
from lediflow.sampling.grids import Bytes, sigma_colours
from lediflow.sampling.methods import checked, classes_of, is_flow_map
from lediflow.sampling.options import Method
from lediflow.sampling.pictures import picture_arrays
from lediflow.sampling.runtime.networks import eager_networks
from lediflow.training.validation import CORRUPT_SHARE, NOISE_SEED

COLUMNS = 8  # images of a row
LATENT_RANGE = 3.0  # latents from minus this to this are shown as black to white, where there is no codec
DEFAULTS = SamplingConfig()

Samples = Int64[np.ndarray, " samples"]
Ids = Int64[Tensor, " batch"]


class PictureChain(Chain):
    """The models of generation that a run has at hand, run as `lediflow.sample` does by default.

    They are in evaluation mode; one of them is the averaged model. Methods raise ValueError for a result that is not
    finite.
    """

    @property
    def models(self) -> list[AuxiliaryModel | VelocityModel | LatentSampler]:
        """The models that are at hand."""
        return [model for model in (self.auxiliary, self.velocity, self.latent_sampler) if model is not None]

    @property
    def method(self) -> Method:
        """How the velocity is integrated."""
        return DEFAULTS.method(is_flow_map(self.velocity))

    @property
    def latent_method(self) -> Method:
        return DEFAULTS.latent_method(is_flow_map(self.latent_sampler))

    def z_of(self, w: Latent, labels: Ids | None) -> Latent:
        """The latent sampler's z."""
        return checked(self.latents_from(w, labels, DEFAULTS)).x

    def draw(self, prior: Prior, noise: Image) -> Image:
        """A draw of the prior."""
        return sample(prior.mean, prior.logvar, noise)

    def flow(self, x: Image, z: Latent | None, labels: Ids | None) -> Image:
        """The image that the velocity makes of a draw."""
        known = labels if classes_of(self.velocity) else None
        return checked(self.integrate(Start(x, z, None, known), DEFAULTS)).x

    def labels_of(self, ids: Ids) -> Ids | None:
        """Classes in turn, for generated images; None for models without classes."""
        count = classes_of(self.velocity) or classes_of(self.latent_sampler)
        return ids % count if count else None


def picture_chain(
    image_size: int,
    *,
    auxiliary: AuxiliaryModel | None = None,
    velocity: VelocityModel | None = None,
    sampler: LatentSampler | None = None,
    width: Width | None = None,
) -> PictureChain:
    """A chain of these models as they are; `width` is that of the velocity's prior."""
    models = {"auxiliary": auxiliary, "velocity": velocity, "latent_sampler": sampler}
    networks = eager_networks({name: model for name, model in models.items() if model is not None}, "float32")
    return PictureChain(velocity, auxiliary, sampler, lambda: networks, image_size, width or Width())


class FixedImages:
    """The same few images each time: held-out ones, or images of the training set where nothing is held out."""

    def __init__(self, reader: ShardReader, held_out_fraction: float, device: torch.device) -> None:
        self.reader, self.device = reader, device
        self.held_out_fraction = held_out_fraction

    @cached_property
    def stored(self) -> tuple[StoredBatch, bool]:
        """The images as they are stored, and whether they are held out; a corrupt one is replaced by the next."""
        keys = self.reader.index.table["key"]
        held_out = samples_of("heldout", keys, self.held_out_fraction)
        samples = held_out if len(held_out) else np.arange(len(keys))
        quarantine = Quarantine(self.reader, samples, CORRUPT_SHARE)
        chosen = spread_over(samples, COLUMNS)
        batch = quarantine.loaded(chosen, lambda numbers: load_samples(self.reader, numbers, numbers))
        return batch, len(held_out) > 0

    def batch(self) -> Batch:
        """The images as the models see them; ids are their numbers in the set."""
        return ready(self.stored[0], self.reader, SampleNoise(NOISE_SEED), self.device)

    @property
    def name(self) -> str:
        return "held-out images" if self.stored[1] else "training images (none is held out)"


@dataclass(frozen=True)
class Display:
    """How signals of the models become bytes: by the codec's decoder, or as colours where it is not at hand.

    `codec` is its name; "pixels" needs no decoder.
    """

    codec: str = "pixels"
    decode: Callable[[Tensor], Tensor] | None = None

    def __call__(self, signals: Image) -> Bytes:
        """Bytes of signals; ValueError if one is not finite."""
        if not signals.isfinite().all():
            raise ValueError("the model's output is not finite")
        if self.codec == "pixels":
            return picture_arrays(signals)
        if self.decode is None:
            return picture_arrays(as_colours(signals) / LATENT_RANGE)
        # one at a time: an autoencoder's activations are large
        images = torch.cat([self.decode(one).cpu() for one in signals.split(1)])
        return picture_arrays(images)

    @property
    def note(self) -> str:
        """A sentence for captions; empty for images."""
        if self.codec == "pixels":
            return ""
        if self.decode is not None:
            return f" Decoded by {self.codec}."
        return (
            f" Latents of {self.codec}, not decoded: the first channels as colours, -{LATENT_RANGE:g} black to "
            f"{LATENT_RANGE:g} white; train.pictures.codec_path=WEIGHTS decodes them."
        )


def as_colours(
    latents: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch colours height width"]:
    """The first three channels, or the first one of fewer."""
    return latents[:, :3] if latents.shape[1] >= 3 else latents[:, :1]


def sigma_map(prior: Prior) -> Bytes:
    """The standard deviation of each pixel, a mean over channels, as colours."""
    return sigma_colours(sigma_of(prior).cpu().numpy())


def sigma_of(prior: Prior) -> Float[Tensor, "batch height width"]:
    return (0.5 * prior.logvar).exp().mean(dim=1)


def between(
    first: Float[Tensor, "*shape"], last: Float[Tensor, "*shape"], *, frames: int, is_noise: bool
) -> Float[Tensor, " frames *shape"]:
    """Points from `first` to `last`: on the line, or of noise on a quarter of an ellipse.

    Points between two draws of N(0, I) have a smaller variance than these: with the weights (1 - a, a) it falls to a
    half. With (cos a, sin a) it stays 1.
    """
    shares = torch.linspace(0, 1, frames, device=first.device)
    ends = torch.stack((first, last))
    angle = shares * torch.pi / 2
    weights = torch.stack((angle.cos(), angle.sin()) if is_noise else (1 - shares, shares), dim=1)
    return torch.einsum("f e, e ... -> f ...", weights, ends)


def same(x: Float[Tensor, "*shape"], *, frames: int) -> Float[Tensor, " frames *shape"]:
    """The same tensor for each frame."""
    return repeat(x, "... -> frames ...", frames=frames)
