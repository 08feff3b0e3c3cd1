"""Specifications of the three models as plain data.

Training copies the shape of the auxiliary model's latent into `VelocitySpec.latent_shape`.
Source: arXiv:2505.20723, table of hyperparameters. The paper does not give the latent's height and width; the
default (the grid is halved at every change of level) gives 4 x 4 for both of its image sizes.
"""

import math
from dataclasses import dataclass, field
from difflib import get_close_matches

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
# how a latent sampler is run by default: midpoint steps of a velocity, as in the paper, or jumps of a flow map
LATENT_STEPS, LATENT_JUMPS = 4, 1


@dataclass(kw_only=True)
class AuxiliarySpec:
    """Auxiliary model: encoder to a small latent, decoder to a Gaussian over images; no time, no condition."""

    image_channels: int = bounded(at_least=1)  # 3 for RGB, 4 for Stable Diffusion latents
    patch_size: int = bounded(at_least=1)  # pixels per token side; the latent is reduced by this factor, too
    levels: list[LevelSpec]  # fine to coarse; the decoder uses them in reverse order
    latent_channels: int = bounded(4, at_least=1)  # channels of the latent, which is a small image
    # number of level changes that halve the grid; fewer: a larger latent; null: all
    halvings: int | None = bounded(None, at_least=0)
    # lower bound of the prior's log sigma^2 (-7: sigma = 0.03); lower: a prior that is nearly discrete becomes possible
    logvar_floor: float = bounded(-7.0)
    # upper bound of the prior's log sigma^2, which keeps draws near the range of the data; null: no bound
    logvar_ceiling: float | None = bounded(None)
    augmentation: bool = False  # take the nine numbers of data.augment as an input of encoder and decoder

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
        """Reduction of the grid's sides at each change of level, fine to coarse."""
        changes = len(self.levels) - 1
        halvings = changes if self.halvings is None else self.halvings
        return [2] * halvings + [1] * (changes - halvings)


@dataclass(kw_only=True)
class VelocitySpec:
    """The flow model: an hourglass conditioned on the time and, unless latent_shape is empty, on the latent z."""

    image_channels: int = bounded(at_least=1)  # 3 for RGB, 4 for Stable Diffusion latents
    patch_size: int = bounded(at_least=1)  # pixels per token side
    levels: list[LevelSpec]  # fine to coarse
    mapping: MappingSpec = field(default_factory=MappingSpec)
    # shape of z; training copies it from the auxiliary model
    latent_shape: list[int] = bounded(default_factory=list, at_least=1)
    # where z is an input: vector (mapping network) | concat (channels of the image) | tokens (middle level)
    conditioning: str = "vector"
    # number of classes, without "no class"; 0: no class labels
    num_classes: int = bounded(0, at_least=0)
    augmentation: bool = False  # take the nine numbers of data.augment as an input: +0.6 M parameters
    # whether the model is a flow map, with a second time; training sets it by stage.objective
    is_flow_map: bool = False

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
        check_flow_map(self.is_flow_map, self.levels, "model.velocity")

    @property
    def latent_dim(self) -> int:
        """Number of entries of z; 0 for the flow-matching baseline."""
        return math.prod(self.latent_shape) if self.latent_shape else 0

    def latent_channels_by(self, conditioning: str) -> int:
        """Channels of z if it is an input in this way, else 0."""
        return self.latent_shape[0] if self.latent_shape and self.conditioning == conditioning else 0


@dataclass(kw_only=True)
class LatentSamplerSpec:
    """The latent sampler: a flow model over latents, from w ~ N(0, I) to z."""

    latent_channels: int = bounded(4, at_least=1)  # must equal model.auxiliary.latent_channels
    # default: one global level of 8 layers, 17 M parameters with the mapping network
    levels: list[LevelSpec] = field(
        default_factory=lambda: [LevelSpec(depth=8, width=384, d_ff=768, head_dim=64)]
    )
    mapping: MappingSpec = field(default_factory=lambda: MappingSpec(width=384))
    # number of classes, without "no class"; 0: latents are drawn without a class
    num_classes: int = bounded(0, at_least=0)
    augmentation: bool = False  # take the nine numbers of data.augment as an input
    # whether the model is a flow map, with a second time; training sets it by stage.objective
    is_flow_map: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)
        check_levels(self.levels)
        check_flow_map(self.is_flow_map, self.levels, "model.latent_sampler")


def check_flow_map(is_flow_map: bool, levels: list[LevelSpec], key: str) -> None:
    """ValueError for a flow map with a single layer, which has no place for its second time."""
    if is_flow_map and len(levels) == 1 and levels[0].depth < 2:
        raise ValueError(
            f"a flow map uses its first time in the first half of its layers and the second in the other, but {key} "
            f"has one layer; set {key}.levels[0].depth to 2 or more, in its teacher, too"
        )


def has_dropout(spec: AuxiliarySpec | VelocitySpec | LatentSamplerSpec | HourglassSpec) -> bool:
    """Whether the model has dropout, so that training needs sample keys."""
    return uses_dropout(spec.levels, getattr(spec, "mapping", None))


def velocity_hourglass(spec: VelocitySpec) -> HourglassSpec:
    """Specification of the hourglass in a flow model."""
    return HourglassSpec(
        in_channels=spec.image_channels + spec.latent_channels_by("concat"),
        out_channels=spec.image_channels,
        patch_size=spec.patch_size,
        levels=spec.levels,
        mapping=spec.mapping,
        num_classes=label_rows(spec),
        conditioning_dim=spec.latent_dim if spec.conditioning == "vector" else 0,
        augmentation=spec.augmentation,
    )


def sampler_hourglass(spec: LatentSamplerSpec) -> HourglassSpec:
    """Specification of the hourglass in a latent sampler: one token per pixel of the latent."""
    return HourglassSpec(
        in_channels=spec.latent_channels,
        out_channels=spec.latent_channels,
        patch_size=1,
        levels=spec.levels,
        mapping=spec.mapping,
        num_classes=label_rows(spec),
        augmentation=spec.augmentation,
    )


def label_rows(spec: VelocitySpec | LatentSamplerSpec) -> int:
    """Rows of the embedding of classes, the last of which is "no class"; 0 without classes."""
    return spec.num_classes + 1 if spec.num_classes else 0


def latent_shape(spec: AuxiliarySpec, height: int, width: int) -> tuple[int, int, int]:
    """(channels, height, width) of the latent of a height x width image."""
    check_grid(spec.levels, spec.patch_size, height, width, spec.factors, key="model.auxiliary")
    reduction = latent_reduction(spec)
    return spec.latent_channels, height // reduction, width // reduction


def latent_reduction(spec: AuxiliarySpec) -> int:
    """Ratio of the image's to the latent's side length."""
    return spec.patch_size * math.prod(spec.factors)
