"""Cost of an hourglass, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch

from lediflow.nn.cost.bricks import (
    Cost,
    Memory,
    attention_core,
    attention_projections,
    feed_forward,
    linear,
    norm,
)
from lediflow.nn.specs import HourglassSpec, LevelSpec, check_grid

INDEX_BYTES = 8  # a class label is an int64


@dataclass(frozen=True)
class LevelCost:
    """Cost of all layers of one token grid, and of the maps into and out of it."""

    name: str
    height: int  # in tokens
    width: int  # in tokens
    layers: int
    attention_projections: Cost
    attention_core: Cost
    feed_forward: Cost
    resampling: Cost  # patching or merging into this grid, splitting out of it

    @property
    def total(self) -> Cost:
        return self.attention_projections + self.attention_core + self.feed_forward + self.resampling


@dataclass(frozen=True)
class ModelCost:
    """Costs of a model's levels, and of its parts outside of them."""

    levels: Sequence[LevelCost]
    besides: Mapping[str, Cost] = field(default_factory=dict)  # name of the part -> cost

    @property
    def total(self) -> Cost:
        return sum([*(level.total for level in self.levels), *self.besides.values()], Cost())

    @property
    def training_flops(self) -> int:
        """FLOPs of forward and backward pass of one image: 3 times the forward pass (gradients of input and weight).

        Recomputation is not counted, as is customary for model FLOPs utilisation.
        """
        return 3 * self.total.flops


def hourglass_cost(
    spec: HourglassSpec,
    height: int,
    width: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    recompute: bool = False,
) -> ModelCost:
    """Cost of one height x width image; `recompute` is activation checkpointing of every layer.

    With recomputation, the activations of one layer are added: they exist while its gradient is computed.
    """
    check_grid(spec.levels, spec.patch_size, height, width)
    memory, condition_width = Memory(dtype, recompute), spec.mapping.width
    sides = accumulate(spec.levels[1:], lambda side, _: 2 * side, initial=spec.patch_size)
    levels = []
    for index, (level, side) in enumerate(zip(spec.levels, sides, strict=True)):
        grid = (height // side, width // side)
        resampling = hourglass_resampling(spec, index, grid[0] * grid[1], memory)
        layers = level.depth * (1 if index == len(spec.levels) - 1 else 2)  # the middle level runs once
        levels.append(level_cost(f"level {index}", level, layers, grid, condition_width, resampling, memory))
    return ModelCost(levels, {"condition": condition_cost(spec, memory)})


def level_cost(
    name: str,
    level: LevelSpec,
    layers: int,
    grid: tuple[int, int],
    condition_width: int | None,
    resampling: Cost,
    memory: Memory,
) -> LevelCost:
    """Cost of a level's layers; recomputed ones store only their input."""
    tokens = grid[0] * grid[1]
    projections = attention_projections(level, tokens, condition_width, memory)
    core = attention_core(level, tokens, memory)
    forward = feed_forward(
        tokens, level.width, level.feedforward_width, condition_width, memory, level.dropout
    )
    if memory.recompute:
        projections, core, forward = (replace(part, kept_bytes=0) for part in (projections, core, forward))
        projections += memory.kept(tokens * level.width)
    return LevelCost(name, *grid, layers, projections * layers, core * layers, forward * layers, resampling)


def hourglass_resampling(spec: HourglassSpec, index: int, tokens: int, memory: Memory) -> Cost:
    """Cost of the maps into and out of a level's grid: patches at the finest level, merge and split at the others."""
    width = spec.levels[index].width
    if index == 0:
        patch = spec.patch_size**2
        into = linear(tokens, spec.in_channels * patch, width, memory)
        return into + image_head(tokens, width, spec.out_channels * patch, memory)
    finer = spec.levels[index - 1].width
    merge, split = linear(tokens, 4 * finer, width, memory), linear(tokens, width, 4 * finer, memory)
    mix = memory.kept(2 * 4 * tokens * finer) + Cost(parameters=1)  # skip, split and their learned fraction
    return merge + split + mix


def image_head(tokens: int, width: int, out_width: int, memory: Memory) -> Cost:
    """Cost of the last norm and linear map of a model."""
    return norm(tokens, width, None, memory) + linear(tokens, width, out_width, memory)


def condition_cost(spec: HourglassSpec, memory: Memory) -> Cost:
    """Cost of embeddings and mapping network: once per image, independent of its size."""
    width, mapping = spec.mapping.width, spec.mapping
    embedding = linear(
        1, width, width, memory
    )  # linear map of Fourier features: of time, and of augmentation if used
    inputs = embedding * (2 if spec.augmentation else 1)
    if spec.num_classes:
        inputs += Cost(parameters=spec.num_classes * width, kept_bytes=INDEX_BYTES)
    if spec.conditioning_dim:
        inputs += linear(1, spec.conditioning_dim, width, memory)
    norms = norm(1, width, None, memory) * 2
    blocks = feed_forward(1, width, mapping.feedforward_width, None, memory, mapping.dropout) * mapping.depth
    return inputs + norms + blocks + memory.kept(width)  # the condition vector, shared by all norms
