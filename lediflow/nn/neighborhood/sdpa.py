"""Neighborhood attention as masked attention over the whole grid.

The cost grows with the square of the token count, but on CPUs and small grids PyTorch's fused kernel with a boolean
mask is by far the fastest route.
"""

import torch.nn.functional as F
from einops import rearrange

from lediflow.nn.neighborhood.protocol import Problem
from lediflow.nn.neighborhood.window import cached_grid_mask
from lediflow.nn.shapes import Heads


def missing(problem: Problem) -> None:
    """None: this route supports every problem."""


def attention(q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads:
    """softmax(scale q k^T) v, with the keys outside each query's window masked out."""
    height, width = q.shape[1:3]
    mask = cached_grid_mask(height, width, kernel_size, q.device)
    q, k, v = (rearrange(x, "b h w n d -> b n (h w) d") for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return rearrange(mixed, "b n (h w) d -> b h w n d", h=height)
