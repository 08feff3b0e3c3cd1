"""Cost of each building block, for one image of `tokens` tokens.

A tensor that two operations store counts once, with the first operation that uses it: a norm counts the block's input,
a linear map its own input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lediflow.nn.specs import LevelSpec


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
    recompute: bool = False  # layers store only their input (lediflow.nn.checkpointing)

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
