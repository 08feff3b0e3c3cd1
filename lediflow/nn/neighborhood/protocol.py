"""What every route of neighborhood attention promises.

Each token attends to a kernel x kernel square of tokens that lies as centred on it as the border allows
(lediflow.nn.neighborhood.window has the rule). The dense route is the oracle: every other route must match
it, forward and backward. A route that cannot serve a problem says what is missing.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

from lediflow.nn.shapes import Heads


class Problem(NamedTuple):
    """What decides whether a route can serve and how fast it is; the batch does not."""

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
    """The route that was named cannot serve the problem here; the message says what is missing."""


class NeighborhoodAttention(Protocol):
    def __call__(self, q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads: ...


class Route(NamedTuple):
    attention: NeighborhoodAttention
    missing: Callable[[Problem], str | None]  # why a problem cannot be served here; None: it can
    compiles: bool = (
        False  # its backward pass is compiled at the first use: impossible inside another compilation
    )
