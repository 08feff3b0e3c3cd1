"""Neighborhood attention: one call, several routes to the same numbers.

Each token attends to the kernel x kernel square around it. Tensors are "batch height width heads head_dim".
Source: arXiv:2204.07143.
"""

from difflib import get_close_matches

from lediflow.nn.neighborhood import dense, sdpa
from lediflow.nn.neighborhood.protocol import NeighborhoodAttention
from lediflow.nn.shapes import Heads

ROUTES: dict[str, NeighborhoodAttention] = {"dense": dense.attention, "sdpa": sdpa.attention}
AUTO = "sdpa"


def neighborhood_attention(
    q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float | None = None, route: str = "auto"
) -> Heads:
    """softmax(scale q k^T) v over each query's window; scale defaults to 1 / sqrt(head_dim)."""
    height, width, _, head_dim = q.shape[1:]
    if kernel_size > min(height, width):
        raise ValueError(
            f"neighborhood attention: kernel {kernel_size} is wider than its {height}x{width} token grid; "
            f"lower the level's kernel_size or start from a larger image"
        )
    return attention_route(route)(q, k, v, kernel_size, scale=head_dim**-0.5 if scale is None else scale)


def attention_route(name: str) -> NeighborhoodAttention:
    """The implementation behind a route's name."""
    found = ROUTES.get(AUTO if name == "auto" else name)
    if found is None:
        nearest = get_close_matches(name, ROUTES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else 'use "auto"'
        raise ValueError(f"attention route {name!r}: available here are {sorted(ROUTES)}; {hint}")
    return found
