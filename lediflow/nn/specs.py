"""Specification of an hourglass as plain data, for YAML files and for config.json of exported weights.

Levels are listed from fine to coarse; each has half the height and width of the token grid before it.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from lediflow.ranges import bounded, check_ranges

FEEDFORWARD_EXPANSION = 3  # reproduces the parameter counts of the paper
REMEDIES = {  # advice for inputs that a model's levels do not divide
    "image": "resize the image, or use fewer {key}.levels or a smaller {key}.patch_size",
    "latent": "use fewer {key}.levels, or a larger latent: fewer model.auxiliary.halvings or a smaller "
    "model.auxiliary.patch_size",
}


@dataclass(kw_only=True)
class LevelSpec:
    """Transformer layers that share one token grid."""

    # number of layers; an hourglass has this many before its coarser levels and again after them
    depth: int = bounded(at_least=1)
    width: int = bounded(at_least=1)  # channels per token: cost and parameters grow with its square
    d_ff: int = bounded(0, at_least=0)  # hidden channels of the feed-forward block; 0 means 3 x width
    head_dim: int = bounded(64, at_least=1)  # channels per attention head; smaller: more heads
    # side of the square of tokens that each token attends to; null: the whole grid
    kernel_size: int | None = bounded(None, at_least=1)
    # dropout rate after attention and inside the feed-forward block; higher: the model memorises less
    dropout: float = bounded(0.0, at_least=0, below=1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.width % self.head_dim:
            raise ValueError(
                f"level of width {self.width} with head_dim {self.head_dim}: heads must divide the width; "
                f"choose a head_dim that divides {self.width}"
            )
        if self.head_dim % 8:
            raise ValueError(
                f"head_dim {self.head_dim}: rotary embeddings turn pairs on two axes over half of each head, "
                f"so it must be a multiple of 8"
            )

    @property
    def feedforward_width(self) -> int:
        return self.d_ff or FEEDFORWARD_EXPANSION * self.width

    @property
    def num_heads(self) -> int:
        return self.width // self.head_dim


@dataclass(kw_only=True)
class MappingSpec:
    """The mapping network: from time and conditioning to the condition vector of all layers."""

    depth: int = bounded(2, at_least=0)  # number of feed-forward blocks
    width: int = bounded(768, at_least=1)  # length of the condition vector
    d_ff: int = bounded(0, at_least=0)  # hidden channels of each block; 0 means 3 x width
    dropout: float = bounded(0.0, at_least=0, below=1)  # dropout rate in each block

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.width % 2:
            raise ValueError(f"mapping.width {self.width}: cosines and sines each take half, so make it even")

    @property
    def feedforward_width(self) -> int:
        return self.d_ff or FEEDFORWARD_EXPANSION * self.width


@dataclass(kw_only=True)
class HourglassSpec:
    """An hourglass transformer from an image to an image of the same size."""

    in_channels: int = bounded(at_least=1)  # channels of the input image
    out_channels: int = bounded(at_least=1)  # channels of the output image
    patch_size: int = bounded(at_least=1)  # pixels per token side; doubling it quarters the tokens
    levels: list[LevelSpec]  # fine to coarse
    mapping: MappingSpec = field(default_factory=MappingSpec)
    num_classes: int = bounded(0, at_least=0)  # 0: no class labels
    conditioning_dim: int = bounded(0, at_least=0)  # length of the free conditioning vector; 0: none
    augmentation: bool = False  # take the nine augmentation parameters of k-diffusion as an input

    def __post_init__(self) -> None:
        check_ranges(self)
        check_levels(self.levels)


def uses_dropout(levels: Sequence[LevelSpec], mapping: MappingSpec | None = None) -> bool:
    """Whether a model of these levels has dropout, so that training needs sample keys."""
    return any(level.dropout for level in levels) or bool(mapping and mapping.dropout)


def check_levels(levels: Sequence[LevelSpec]) -> None:
    """ValueError for a model without levels."""
    if not levels:
        raise ValueError("levels: the list is empty; give at least one level")


def check_channels(found: int, expected: int, key: str) -> None:
    """ValueError unless an image has the model's number of channels; `key` is the option that sets it."""
    if found != expected:
        raise ValueError(
            f"image of {found} channels: this model was built for {expected} ({key}); give such images, or "
            f"build the model for {found}"
        )


def check_grid(
    levels: Sequence[LevelSpec],
    patch_size: int,
    height: int,
    width: int,
    factors: Sequence[int] | None = None,
    key: str = "model",
    subject: str = "image",
) -> None:
    """ValueError, naming the level and the option to change, for an image that the levels do not divide.

    `factors` are the reductions of the grid's sides from level to level, 2 by default. `key` is the model's key in the
    configuration; `subject` is its input: `image`, or `latent` (of the auxiliary model).
    """
    # whole numbers instead of symbolic sizes: a compiled model has one graph per size
    height, width = operator.index(height), operator.index(width)
    cells = [patch_size, *(factors if factors is not None else [2] * (len(levels) - 1))]
    multiple = math.prod(cells)
    if height % multiple or width % multiple:
        raise ValueError(
            f"{subject} of {height}x{width}: patches of {patch_size} over {len(levels)} levels need sides that "
            f"are multiples of {multiple}; {REMEDIES[subject].format(key=key)}"
        )
    for index, (level, cell) in enumerate(zip(levels, accumulate(cells, operator.mul), strict=True)):
        check_kernel(index, level.kernel_size, height // cell, width // cell, key, subject)


def check_kernel(
    index: int, kernel_size: int | None, height: int, width: int, key: str, subject: str = "image"
) -> None:
    """ValueError for a neighborhood that is wider than the token grid of its level."""
    if kernel_size is not None and kernel_size > min(height, width):
        raise ValueError(
            f"level {index}: kernel {kernel_size} is wider than its {height}x{width} token grid; "
            f"lower {key}.levels[{index}].kernel_size or start from a larger {subject}"
        )
