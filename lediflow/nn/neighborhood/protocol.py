"""What every route of neighborhood attention promises.

Each token attends to a kernel x kernel square of tokens that lies as centred on it as the border allows
(lediflow.nn.neighborhood.window has the rule). The dense route is the oracle: every other route must match
it, forward and backward.
"""

from typing import Protocol

from lediflow.nn.shapes import Heads


class NeighborhoodAttention(Protocol):
    def __call__(self, q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads: ...
