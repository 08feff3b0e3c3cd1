"""The auxiliary model: encoder and decoder of the learned prior.

The encoder maps an image y to a posterior over latents, q(z | y) = N(mu_E(y), sigma_E(y)^2). The decoder maps a latent
to the prior p(y | z) = N(mu(z), sigma(z)^2), independent for every pixel and channel. Both predict log sigma^2. If
training augments images, y is the augmented image, and both are conditioned on the nine numbers of its augmentation,
so that z need not encode them; zeros, the default, mean no augmentation.
Source: arXiv:2505.20723, eq. 3; the blocks are those of the hourglass, without condition and without skips.
"""

from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from lediflow.flow.gaussians import bound_logvar, sample
from lediflow.models.specs import AuxiliarySpec, latent_reduction, latent_shape
from lediflow.nn.dropout import number_places
from lediflow.nn.embeddings import AugmentationEmbedding
from lediflow.nn.levels import Level, TokenMerge, TokenSplit
from lediflow.nn.norms import RMSNorm, at_least_float32
from lediflow.nn.shapes import Image, SampleKeys, Tokens, image_of, tokens_of
from lediflow.nn.specs import check_channels

Augmentation = Float[Tensor, "batch 9"]
Latent = Float[Tensor, "batch latent_channels latent_height latent_width"]


class Posterior(NamedTuple):
    """The distribution of latents of an image, q(z | y)."""

    mean: Latent
    logvar: Latent


class Prior(NamedTuple):
    """The distribution of images given a latent, p(y | z), where the flow starts."""

    mean: Image
    logvar: Image


class AuxiliaryOutput(NamedTuple):
    """Result of a training pass."""

    posterior: Posterior
    z: Latent
    prior: Prior


class Encoder(nn.Module):
    """Image to mean and log variance of the latent: levels from fine to coarse."""

    def __init__(self, spec: AuxiliarySpec, attention_route: str = "auto") -> None:
        super().__init__()
        finest, coarsest = spec.levels[0].width, spec.levels[-1].width
        self.patch_in = TokenMerge(spec.image_channels, finest, spec.patch_size)
        self.levels = nn.ModuleList(Level(level, route=attention_route) for level in spec.levels)
        changes = zip(pairwise(spec.levels), spec.factors, strict=True)
        self.merges = nn.ModuleList(
            TokenMerge(fine.width, coarse.width, factor) for (fine, coarse), factor in changes
        )
        self.out_norm = RMSNorm(coarsest)
        self.to_mean = nn.Linear(coarsest, spec.latent_channels, bias=False)
        self.to_logvar = nn.Linear(coarsest, spec.latent_channels, bias=False)
        # the posterior has unit variance at initialisation, like its target N(0, I)
        nn.init.zeros_(self.to_logvar.weight)
        self.augmentation = AugmentationEmbedding(finest) if spec.augmentation else None

    def forward(
        self, y: Image, keys: SampleKeys | None = None, augmentation: Augmentation | None = None
    ) -> Posterior:
        x = self.patch_in(tokens_of(y))
        x = with_augmentation(self.augmentation, x, augmentation)
        for level, merge in zip(self.levels, [*self.merges, nn.Identity()], strict=True):
            x = merge(level(x, keys=keys))
        x = self.out_norm(x)
        mean, logvar = (image_of(head(x)) for head in (self.to_mean, self.to_logvar))
        return Posterior(at_least_float32(mean), at_least_float32(logvar))


class Decoder(nn.Module):
    """Latent to mean and log variance of every pixel: levels from coarse to fine."""

    def __init__(self, spec: AuxiliarySpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.logvar_floor, self.logvar_ceiling = spec.logvar_floor, spec.logvar_ceiling
        finest, coarsest = spec.levels[0].width, spec.levels[-1].width
        self.latent_in = nn.Linear(spec.latent_channels, coarsest, bias=False)
        self.levels = nn.ModuleList(Level(level, route=attention_route) for level in reversed(spec.levels))
        changes = zip(pairwise(spec.levels), spec.factors, strict=True)
        self.splits = nn.ModuleList(
            TokenSplit(coarse.width, fine.width, factor) for (fine, coarse), factor in reversed([*changes])
        )
        self.out_norm = RMSNorm(finest)
        self.patch_out = TokenSplit(finest, 2 * spec.image_channels, spec.patch_size)
        nn.init.zeros_(self.patch_out.proj.weight)  # the prior is N(0, 1) at initialisation
        self.augmentation = AugmentationEmbedding(coarsest) if spec.augmentation else None

    def forward(
        self, z: Latent, keys: SampleKeys | None = None, augmentation: Augmentation | None = None
    ) -> Prior:
        x = self.latent_in(tokens_of(z))
        x = with_augmentation(self.augmentation, x, augmentation)
        for level, split in zip(self.levels, [*self.splits, nn.Identity()], strict=True):
            x = split(level(x, keys=keys))
        mean, raw_logvar = at_least_float32(image_of(self.patch_out(self.out_norm(x)))).chunk(2, dim=1)
        return Prior(mean, bound_logvar(raw_logvar, self.logvar_floor, self.logvar_ceiling))


class AuxiliaryModel(nn.Module):
    """Encoder and decoder: use `encode` and `decode`; `forward` is the training pass."""

    def __init__(self, spec: AuxiliarySpec, attention_route: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec, attention_route)
        self.decoder = Decoder(spec, attention_route)
        number_places(self)

    def encode(
        self, y: Image, dropout: SampleKeys | None = None, augmentation: Augmentation | None = None
    ) -> Posterior:
        """q(z | y) of images; `augmentation` None means not augmented."""
        check_channels(y.shape[1], self.spec.image_channels, "model.auxiliary.image_channels")
        latent_shape(self.spec, *y.shape[-2:])  # ValueError for sizes that the levels do not divide
        return self.encoder(y, dropout, augmentation)

    def decode(
        self, z: Latent, dropout: SampleKeys | None = None, augmentation: Augmentation | None = None
    ) -> Prior:
        """p(y | z) of latents; `augmentation` None means not augmented."""
        self.check_latent(z)
        return self.decoder(z, dropout, augmentation)

    def forward(
        self,
        y: Image,
        noise: Latent,
        dropout: SampleKeys | None = None,
        augmentation: Augmentation | None = None,
    ) -> AuxiliaryOutput:
        """Posterior of y, the latent drawn from it with `noise`, and the prior of that latent.

        `dropout` is one key per sample (`SampleNoise.words`), needed for training with dropout.
        `augmentation` is the nine numbers of each image y; None means not augmented.
        """
        posterior = self.encode(y, dropout, augmentation)
        if noise.shape != posterior.mean.shape:
            raise ValueError(
                f"noise of shape {tuple(noise.shape)}: the latent has shape {tuple(posterior.mean.shape)}, determined "
                f"by image size, model.auxiliary.latent_channels and model.auxiliary.halvings; give noise of "
                f"that shape"
            )
        z = sample(posterior.mean, posterior.logvar, noise)
        return AuxiliaryOutput(posterior, z, self.decode(z, dropout, augmentation))

    def check_latent(self, z: Latent) -> None:
        """ValueError for a latent of a shape that the encoder cannot produce."""
        channels, reduction = self.spec.latent_channels, latent_reduction(self.spec)
        if z.ndim != 4 or z.shape[1] != channels:
            raise ValueError(
                f"latent of shape {tuple(z.shape)}: this decoder takes batch x {channels} x height x width, for images "
                f"{reduction} times as high and wide; give it a latent from encode "
                f"(model.auxiliary.latent_channels={channels})"
            )
        latent_shape(self.spec, reduction * z.shape[-2], reduction * z.shape[-1])  # kernels must fit


def with_augmentation(
    embedding: AugmentationEmbedding | None, x: Tokens, augmentation: Augmentation | None
) -> Tokens:
    """Add the embedded augmentation to the tokens; ValueError if it is given to a model without this input."""
    if embedding is not None:
        return embedding.added_to(x, augmentation)
    if augmentation is not None:
        raise ValueError(
            "augmentation: given, but this model was built without it; leave it out, or build the model with "
            "model.auxiliary.augmentation=true"
        )
    return x
