"""The cost of each brick, for one image of `tokens` tokens.

A tensor that two operations keep counts once, with the first that takes it: a norm counts the block's input, a
linear map counts its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lediflow.nn.specs import LevelSpec


@dataclass(frozen=True)
class Cost:
    """Costs add up, and multiply by a number of equal parts."""

    parameters: int = 0
    flops: int = 0  # of one image's forward pass
    kept_bytes: int = 0  # activations of one image that wait for its backward pass

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
    """What autograd keeps, in a model whose activations are of one dtype."""

    dtype: torch.dtype
    recompute: bool = False  # whether layers keep their input only (lediflow.nn.checkpointing)

    @property
    def wide(self) -> torch.dtype:
        """What statistics are taken in."""
        return torch.promote_types(self.dtype, torch.float32)

    def kept(self, numbers: int) -> Cost:
        """Numbers in the model's dtype."""
        return Cost(kept_bytes=numbers * self.dtype.itemsize)

    def statistics(self, numbers: int) -> Cost:
        """Numbers in float32 or wider."""
        return Cost(kept_bytes=numbers * self.wide.itemsize)

    def masks(self, numbers: int, rate: float) -> Cost:
        """Memory of a dropout mask: a byte for each number."""
        return Cost(kept_bytes=numbers) if rate else Cost()

    def widened(self, numbers: int) -> Cost:
        """The copies that statistics are taken of; a model of a wide dtype needs none."""
        return Cost() if self.wide == self.dtype else self.statistics(numbers)


def product(tokens: int, in_width: int, out_width: int) -> Cost:
    """A linear map whose input something else keeps."""
    return Cost(parameters=in_width * out_width, flops=2 * tokens * in_width * out_width)


def linear(tokens: int, in_width: int, out_width: int, memory: Memory) -> Cost:
    """A linear map that keeps its input."""
    return product(tokens, in_width, out_width) + memory.kept(tokens * in_width)


def norm(tokens: int, width: int, condition_width: int | None, memory: Memory) -> Cost:
    """It keeps its input, the factor that each number is multiplied by, and each token's statistic."""
    entries = tokens * width
    kept = memory.kept(2 * entries) + memory.widened(entries) + memory.statistics(tokens)
    if condition_width is None:
        return kept + Cost(parameters=width)
    return kept + product(1, condition_width, width) + memory.statistics(width)


def attention_projections(level: LevelSpec, tokens: int, condition_width: int | None, memory: Memory) -> Cost:
    """Norm, the map to queries, keys and values, and the map of what attention mixed."""
    width = level.width
    to_heads = norm(tokens, width, condition_width, memory) + linear(tokens, width, 3 * width, memory)
    if level.dropout:  # then the input of the last map is another tensor than attention's output
        return to_heads + linear(tokens, width, width, memory) + memory.masks(tokens * width, level.dropout)
    return to_heads + product(tokens, width, width)


def attention_core(level: LevelSpec, tokens: int, memory: Memory) -> Cost:
    """Scaling, rotation, and the two products of attention; six tensors of the tokens' size stay.

    These are queries, keys and values as projected, queries and keys as rotated, and the output.
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
    """Norm, up, gate, down: values, gates and opened gates stay, beside the inputs of both maps."""
    up = norm(tokens, width, condition_width, memory) + linear(tokens, width, 2 * d_ff, memory)
    gates = memory.kept(3 * tokens * d_ff) + memory.masks(tokens * d_ff, dropout)
    return up + gates + linear(tokens, d_ff, width, memory)
