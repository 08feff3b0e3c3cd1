"""Cost of a network, computed from its specification: parameters, FLOPs and activation memory of one image.

FLOPs are those of the forward pass, 2 per multiply-add, matrix products only: linear maps, and the two products
of attention. A query of a neighborhood level counts kernel_size^2 keys, as in the formula, whatever the
implementation computes. By this count the paper's flow models take 119.6 GFLOP (RGB) and 88.5 GFLOP (SDV).
Training takes three times the forward pass.

Activation memory is what one more image in the batch adds to the tensors that autograd stores for the backward
pass in eager PyTorch: each operation stores what its derivative needs, norms and lengths use float32 copies, and
attention is a fused kernel that stores queries, keys, values, output and one log-sum-exp per query and head.
A compiler or a fused kernel that recomputes more stores less.

The cost of each building block is for one image of `tokens` tokens. A tensor that two operations store counts once,
with the first operation that uses it: a norm counts the block's input, a linear map its own input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch

from lediflow.nn.specs import HourglassSpec, LevelSpec, check_grid

INDEX_BYTES = 8  # a class label is an int64


@dataclass(frozen=True)
class Cost:
    """Parameters, FLOPs and activation bytes; supports cost + cost and cost * count."""

    parameters: int = 0
    flops: int = 0  # of the forward pass of one image
    kept_bytes: int = 0  # activations of one image that are stored for the backward pass

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.flops + other.flops,
            self.kept_bytes + other.kept_bytes,
        )

    def __mul__(self, times: int) -> Cost:
        return Cost(times * self.parameters, times * self.flops, times * self.kept_bytes)


@dataclass(frozen=True)
class Memory:
    """Activation memory in a model whose activations have one dtype."""

    dtype: torch.dtype
    recompute: bool = False  # layers store only their input (activation checkpointing)

    @property
    def wide(self) -> torch.dtype:
        """The dtype of statistics: at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def kept(self, numbers: int) -> Cost:
        """Memory of numbers in the model's dtype."""
        return Cost(kept_bytes=numbers * self.dtype.itemsize)

    def statistics(self, numbers: int) -> Cost:
        """Memory of numbers in at least float32."""
        return Cost(kept_bytes=numbers * self.wide.itemsize)

    def masks(self, numbers: int, rate: float) -> Cost:
        """Memory of a dropout mask: one byte per number."""
        return Cost(kept_bytes=numbers) if rate else Cost()

    def widened(self, numbers: int) -> Cost:
        """Memory of the float32 copies that statistics are computed from; 0 in a model of float32 or wider."""
        return Cost() if self.wide == self.dtype else self.statistics(numbers)


def product(tokens: int, in_width: int, out_width: int) -> Cost:
    """A linear map whose input is counted elsewhere."""
    return Cost(parameters=in_width * out_width, flops=2 * tokens * in_width * out_width)


def linear(tokens: int, in_width: int, out_width: int, memory: Memory) -> Cost:
    """A linear map that stores its input."""
    return product(tokens, in_width, out_width) + memory.kept(tokens * in_width)


def norm(tokens: int, width: int, condition_width: int | None, memory: Memory) -> Cost:
    """A norm; it stores its input, the factor of each number, and one statistic per token."""
    entries = tokens * width
    kept = memory.kept(2 * entries) + memory.widened(entries) + memory.statistics(tokens)
    if condition_width is None:
        return kept + Cost(parameters=width)
    return kept + product(1, condition_width, width) + memory.statistics(width)


def attention_projections(level: LevelSpec, tokens: int, condition_width: int | None, memory: Memory) -> Cost:
    """Norm, projection to queries, keys and values, and output projection."""
    width = level.width
    to_heads = norm(tokens, width, condition_width, memory) + linear(tokens, width, 3 * width, memory)
    if level.dropout:  # the input of the output projection is then not the output of attention itself
        return to_heads + linear(tokens, width, width, memory) + memory.masks(tokens * width, level.dropout)
    return to_heads + product(tokens, width, width)


def attention_core(level: LevelSpec, tokens: int, memory: Memory) -> Cost:
    """Scaling, rotation and the two products of attention; six tensors of the tokens' size are stored.

    These are the projected queries, keys and values, the rotated queries and keys, and the output.
    """
    entries, lengths = tokens * level.width, 2 * tokens * level.num_heads
    keys = tokens if level.kernel_size is None else level.kernel_size**2
    scaling = memory.widened(2 * entries) + memory.statistics(lengths) + memory.kept(lengths)
    log_sum_exp = memory.statistics(tokens * level.num_heads)
    products = Cost(parameters=level.num_heads, flops=4 * entries * keys)
    return products + memory.kept(6 * entries) + scaling + log_sum_exp


def feed_forward(
    tokens: int, width: int, d_ff: int, condition_width: int | None, memory: Memory, dropout: float = 0.0
) -> Cost:
    """Norm, up projection, gate, down projection; values, gates, gelu(gates) and both maps' inputs are stored."""
    up = norm(tokens, width, condition_width, memory) + linear(tokens, width, 2 * d_ff, memory)
    gates = memory.kept(3 * tokens * d_ff) + memory.masks(tokens * d_ff, dropout)
    return up + gates + linear(tokens, d_ff, width, memory)


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
    # linear map of Fourier features: of time, and of augmentation if used
    embedding = linear(1, width, width, memory)
    inputs = embedding * (2 if spec.augmentation else 1)
    if spec.num_classes:
        inputs += Cost(parameters=spec.num_classes * width, kept_bytes=INDEX_BYTES)
    if spec.conditioning_dim:
        inputs += linear(1, spec.conditioning_dim, width, memory)
    norms = norm(1, width, None, memory) * 2
    blocks = feed_forward(1, width, mapping.feedforward_width, None, memory, mapping.dropout) * mapping.depth
    return inputs + norms + blocks + memory.kept(width)  # the condition vector, shared by all norms
