"""Reference neighborhood attention: gather each query's window, then softmax over it.

Slow, and needs kernel_size^2 copies of the keys, but works on any device and in any dtype.
"""

import torch
from einops import einsum, rearrange

from lediflow.nn.neighborhood.protocol import Problem
from lediflow.nn.neighborhood.window import first_keys
from lediflow.nn.shapes import Heads


def missing(problem: Problem) -> None:
    """None: this route supports every problem."""


def attention(q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads:
    """softmax(scale q k^T) v over each query's window."""
    keys, values = windows(k, kernel_size), windows(v, kernel_size)
    logits = scale * einsum(q, keys, "b i j n d, b i j m n d -> b i j n m")
    return einsum(logits.softmax(dim=-1), values, "b i j n m, b i j m n d -> b i j n d")


def windows(x: Heads, kernel_size: int) -> torch.Tensor:
    """The tokens in each query's window, "batch height width (kernel kernel) heads head_dim"."""
    offset = torch.arange(kernel_size, device=x.device)
    rows = first_keys(x.shape[1], kernel_size, x.device)[:, None] + offset
    columns = first_keys(x.shape[2], kernel_size, x.device)[:, None] + offset
    gathered = x[:, rows[:, None, :, None], columns[None, :, None, :]]
    return rearrange(gathered, "b i j k l n d -> b i j (k l) n d")
