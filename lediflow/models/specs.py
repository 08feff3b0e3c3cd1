"""What the three models of LeDiFlow are made of, as plain data.

Whoever trains a flow model copies the shape of its auxiliary model's latent into `VelocitySpec.latent_shape`.
Source: arXiv:2505.20723, table of hyperparameters. The latent's height and width are not in the paper; the
default, every level halving, gives 4 x 4 for both of its image sizes.
"""

import math
from dataclasses import dataclass, field
from difflib import get_close_matches

from torch import nn

from lediflow.nn.specs import (
    HourglassSpec,
    LevelSpec,
    MappingSpec,
    check_grid,
    check_levels,
    uses_dropout,
)
from lediflow.ranges import bounded, check_ranges

CONDITIONINGS = ("vector", "concat", "tokens")


@dataclass(kw_only=True)
class AuxiliarySpec:
    """Encoder to a small latent and decoder to a Gaussian over images, without time or condition."""

    image_channels: int = bounded(at_least=1)  # 3 for RGB, 4 for Stable Diffusion latents
    patch_size: int = bounded(at_least=1)  # pixels per token side; part of the latent's reduction
    levels: list[LevelSpec]  # fine to coarse: the encoder goes down them, the decoder up
    latent_channels: int = bounded(4, at_least=1)  # the latent is treated like an image with so many channels
    halvings: int | None = bounded(
        None, at_least=0
    )  # level changes that halve the grid (null: all); fewer, and the latent grows
    logvar_floor: float = bounded(
        -7.0
    )  # lowest log sigma^2 of the prior (sigma 0.03): lower invites a discrete prior
    logvar_ceiling: float | None = bounded(
        None
    )  # highest log sigma^2, keeps draws near the data's range; null: none
    augmentation: bool = False  # encoder and decoder take the nine numbers of data.augment

    def __post_init__(self) -> None:
        check_ranges(self)
        check_levels(self.levels)
        if self.logvar_ceiling is not None and self.logvar_ceiling <= self.logvar_floor:
            raise ValueError(
                f"logvar_ceiling {self.logvar_ceiling} is not above logvar_floor {self.logvar_floor}; raise it, "
                f"lower the floor, or set it to null for no ceiling"
            )
        changes = len(self.levels) - 1
        if self.halvings is not None and not 0 <= self.halvings <= changes:
            raise ValueError(
                f"halvings {self.halvings} with {len(self.levels)} levels: the grid can halve once at each "
                f"change of level; choose 0 to {changes}, or null for all"
            )

    @property
    def factors(self) -> list[int]:
        """How much each change from a level to the next reduces the grid's sides, fine to coarse."""
        changes = len(self.levels) - 1
        halvings = changes if self.halvings is None else self.halvings
        return [2] * halvings + [1] * (changes - halvings)


@dataclass(kw_only=True)
class VelocitySpec:
    """The flow model: an hourglass that is told the time, and the image's latent z unless that has no shape."""

    image_channels: int = bounded(at_least=1)  # 3 for RGB, 4 for Stable Diffusion latents
    patch_size: int = bounded(at_least=1)  # pixels per token side
    levels: list[LevelSpec]  # fine to coarse
    mapping: MappingSpec = field(default_factory=MappingSpec)
    latent_shape: list[int] = bounded(
        default_factory=list, at_least=1
    )  # of z; training copies it from the auxiliary model
    conditioning: str = (
        "vector"  # how z enters: vector (mapping network) | concat (input) | tokens (middle level)
    )
    num_classes: int = bounded(
        0, at_least=0
    )  # number of classes it is conditioned on, besides "no class"; 0: no class labels
    augmentation: bool = False  # takes the nine numbers of data.augment: +0.6 M parameters

    def __post_init__(self) -> None:
        check_ranges(self)
        check_levels(self.levels)
        if self.conditioning not in CONDITIONINGS:
            nearest = get_close_matches(self.conditioning, CONDITIONINGS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"conditioning {self.conditioning!r}: known are {', '.join(CONDITIONINGS)}; did you mean {nearest!r}?"
            )
        if len(self.latent_shape) not in (0, 3):
            raise ValueError(
                f"latent_shape {list(self.latent_shape)} (model.velocity.latent_shape): give channels, height and "
                f"width, each 1 or more, or [] for the flow-matching baseline, which has no latent"
            )

    @property
    def latent_dim(self) -> int:
        """Numbers in z; 0 for the flow-matching baseline."""
        return math.prod(self.latent_shape) if self.latent_shape else 0

    def latent_channels_by(self, conditioning: str) -> int:
        """Channels of z where it enters in this way, else 0."""
        return self.latent_shape[0] if self.latent_shape and self.conditioning == conditioning else 0


@dataclass(kw_only=True)
class LatentSamplerSpec:
    """The flow model in latent space, which turns w ~ N(0, I) into a latent z."""

    latent_channels: int = bounded(4, at_least=1)  # must be the auxiliary model's
    levels: list[LevelSpec] = field(
        default_factory=lambda: [LevelSpec(depth=8, width=384, d_ff=768, head_dim=64)]
    )  # one global level of 8 layers: 17 M parameters with the mapping below
    mapping: MappingSpec = field(default_factory=lambda: MappingSpec(width=384))
    augmentation: bool = False  # takes the nine numbers of data.augment

    def __post_init__(self) -> None:
        check_ranges(self)
        check_levels(self.levels)


def has_dropout(spec: AuxiliarySpec | VelocitySpec | LatentSamplerSpec | HourglassSpec) -> bool:
    """Whether training such a model takes sample keys."""
    return uses_dropout(spec.levels, getattr(spec, "mapping", None))


def velocity_hourglass(spec: VelocitySpec) -> HourglassSpec:
    """The hourglass inside a flow model."""
    return HourglassSpec(
        in_channels=spec.image_channels + spec.latent_channels_by("concat"),
        out_channels=spec.image_channels,
        patch_size=spec.patch_size,
        levels=spec.levels,
        mapping=spec.mapping,
        num_classes=spec.num_classes + 1 if spec.num_classes else 0,  # the last row is "no class"
        conditioning_dim=spec.latent_dim if spec.conditioning == "vector" else 0,
        augmentation=spec.augmentation,
    )


def sampler_hourglass(spec: LatentSamplerSpec) -> HourglassSpec:
    """The hourglass inside a latent sampler: one token per latent pixel."""
    return HourglassSpec(
        in_channels=spec.latent_channels,
        out_channels=spec.latent_channels,
        patch_size=1,
        levels=spec.levels,
        mapping=spec.mapping,
        augmentation=spec.augmentation,
    )


def latent_shape(spec: AuxiliarySpec, height: int, width: int) -> tuple[int, int, int]:
    """(channels, height, width) of the latent of a height x width image."""
    check_grid(spec.levels, spec.patch_size, height, width, spec.factors, key="model.auxiliary")
    reduction = latent_reduction(spec)
    return spec.latent_channels, height // reduction, width // reduction


def latent_reduction(spec: AuxiliarySpec) -> int:
    """Pixels per side of a latent pixel."""
    return spec.patch_size * math.prod(spec.factors)


def count_parameters(module: nn.Module) -> int:
    """Learned numbers in a module; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())
