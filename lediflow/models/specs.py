"""What the three models of LeDiFlow are made of, as plain data.

Source: arXiv:2505.20723, table of hyperparameters. The latent's height and width are not in the paper; the
default, every level halving, gives 4 x 4 for both of its image sizes.
"""

from dataclasses import dataclass, field

from torch import nn

from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec, check_grid


@dataclass(kw_only=True)
class AuxiliarySpec:
    """Encoder to a small latent and decoder to a Gaussian over images, without time or condition."""

    image_channels: int  # 3 for RGB, 4 for Stable Diffusion latents
    patch_size: int  # pixels per token side; part of the latent's reduction
    levels: list[LevelSpec]  # fine to coarse: the encoder goes down them, the decoder up
    latent_channels: int = 4  # the latent is treated like an image with so many channels
    halvings: int | None = None  # level changes that halve the grid (null: all); fewer, and the latent grows
    logvar_floor: float = -7.0  # lowest log sigma^2 of the prior (sigma 0.03): lower invites a discrete prior

    def __post_init__(self) -> None:
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
    """The flow model: an hourglass that is told the time, and the image's latent unless `latent_dim` is 0."""

    image_channels: int  # 3 for RGB, 4 for Stable Diffusion latents
    patch_size: int  # pixels per token side
    levels: list[LevelSpec]  # fine to coarse
    mapping: MappingSpec = field(default_factory=MappingSpec)
    latent_dim: int = 0  # entries of the latent z it listens to; 0 is the flow-matching baseline
    num_classes: int = 0  # 0: no class labels
    augmentation: bool = False  # keeps the reference's (then constant) augmentation input: +0.6 M parameters


@dataclass(kw_only=True)
class LatentSamplerSpec:
    """The flow model in latent space, which turns w ~ N(0, I) into a latent z."""

    latent_channels: int = 4  # must be the auxiliary model's
    levels: list[LevelSpec] = field(
        default_factory=lambda: [LevelSpec(depth=8, width=384, d_ff=768, head_dim=64)]
    )  # one global level of 8 layers: 17 M parameters with the mapping below
    mapping: MappingSpec = field(default_factory=lambda: MappingSpec(width=384))


def velocity_hourglass(spec: VelocitySpec) -> HourglassSpec:
    """The hourglass inside a flow model."""
    return HourglassSpec(
        in_channels=spec.image_channels,
        out_channels=spec.image_channels,
        patch_size=spec.patch_size,
        levels=spec.levels,
        mapping=spec.mapping,
        num_classes=spec.num_classes,
        conditioning_dim=spec.latent_dim,
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
    )


def latent_shape(spec: AuxiliarySpec, height: int, width: int) -> tuple[int, int, int]:
    """(channels, height, width) of the latent of a height x width image."""
    check_grid(spec.levels, spec.patch_size, height, width, spec.factors)
    reduction = spec.patch_size * 2 ** sum(factor == 2 for factor in spec.factors)
    return spec.latent_channels, height // reduction, width // reduction


def count_parameters(module: nn.Module) -> int:
    """Learned numbers in a module; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())
