"""Interface of the routes of neighborhood attention.

Each token attends to a kernel x kernel square of tokens, centred on it as far as the border allows
(see lediflow.nn.neighborhood.plain). The dense route is the reference: every other route must match it, forward and
backward. A route that does not support a problem says what is missing.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

from lediflow.nn.shapes import Heads


class Problem(NamedTuple):
    """The properties that decide whether a route is supported and how fast it is; the batch size is not one."""

    height: int
    width: int
    num_heads: int
    head_dim: int
    kernel_size: int
    dtype: torch.dtype
    device: torch.device
    is_training: bool  # whether a backward pass follows

    def __str__(self) -> str:
        direction = "forward and backward" if self.is_training else "forward"
        return (
            f"{self.height}x{self.width} tokens, {self.num_heads} heads x {self.head_dim}, kernel "
            f"{self.kernel_size}, {str(self.dtype).removeprefix('torch.')}, {self.device.type}, {direction}"
        )


class RouteUnavailableError(ValueError):
    """The named route does not support the problem here; the message says what is missing."""


class NeighborhoodAttention(Protocol):
    """softmax(scale q k^T) v over each query's window."""

    def __call__(self, q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads: ...


class Route(NamedTuple):
    """An implementation of neighborhood attention."""

    attention: NeighborhoodAttention
    missing: Callable[[Problem], str | None]  # why a problem is not supported here; None if it is
    # the backward pass is compiled at its first use, which is impossible during another compilation
    compiles: bool = False
    # whether "auto" measures it
    is_candidate: bool = True
