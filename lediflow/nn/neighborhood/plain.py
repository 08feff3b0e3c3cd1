"""Neighborhood attention in plain PyTorch: windows, the dense reference, and masked attention over the whole grid.

Along an axis of `length` tokens, query i attends to the `kernel_size` keys that start at

    first(i) = clamp(i - kernel_size // 2, 0, length - kernel_size),

so the window is centred where possible and is shifted at the border: it always has kernel_size keys. Even kernels
follow the same formula.

`dense_attention` gathers each query's window. It is slow, and needs kernel_size^2 copies of the keys, but works on any
device and in any dtype. `sdpa_attention` calls PyTorch's fused kernel with a boolean mask. Its cost grows with the
square of the token count, but on CPUs and small grids it is by far the fastest route.
Source: NATTEN, arXiv:2204.07143, equation 2 and its released code.
"""

from functools import lru_cache

import torch
from einops import einsum, rearrange
from jaxtyping import Int
from torch import Tensor

from lediflow.nn.cached_tensors import ordinary_tensors
from lediflow.nn.compiler import constant_in_graphs
from lediflow.nn.dot_product import Mask, grid_attention
from lediflow.nn.neighborhood.protocol import Problem
from lediflow.nn.shapes import Heads


def missing(problem: Problem) -> None:
    """None: both routes support every problem."""


def dense_attention(q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads:
    """softmax(scale q k^T) v over each query's window: the reference that the other routes must match."""
    keys, values = windows(k, kernel_size), windows(v, kernel_size)
    logits = scale * einsum(q, keys, "b i j n d, b i j m n d -> b i j n m")
    return einsum(logits.softmax(dim=-1), values, "b i j n m, b i j m n d -> b i j n d")


def windows(x: Heads, kernel_size: int) -> Tensor:
    """The tokens in each query's window, "batch height width (kernel kernel) heads head_dim"."""
    offset = torch.arange(kernel_size, device=x.device)
    rows = first_keys(x.shape[1], kernel_size, x.device)[:, None] + offset
    columns = first_keys(x.shape[2], kernel_size, x.device)[:, None] + offset
    gathered = x[:, rows[:, None, :, None], columns[None, :, None, :]]
    return rearrange(gathered, "b i j k l n d -> b i j (k l) n d")


def sdpa_attention(q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads:
    """softmax(scale q k^T) v, with the keys outside each query's window masked out."""
    height, width = q.shape[1:3]
    mask = cached_grid_mask(height, width, kernel_size, q.device)
    return grid_attention(q, k, v, mask=mask, scale=scale)


def first_keys(length: int, kernel_size: int, device: torch.device) -> Int[Tensor, " length"]:
    """The first key of each query's window, along one axis."""
    return (torch.arange(length, device=device) - kernel_size // 2).clamp(0, length - kernel_size)


def axis_mask(length: int, kernel_size: int, device: torch.device) -> Mask:
    """Whether a key is in a query's window, along one axis."""
    first = first_keys(length, kernel_size, device)[:, None]
    key = torch.arange(length, device=device)
    return (key >= first) & (key < first + kernel_size)


def grid_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Mask:
    """Whether a key is in a query's window, over the flattened grid."""
    rows, columns = axis_mask(height, kernel_size, device), axis_mask(width, kernel_size, device)
    both = rearrange(rows, "i k -> i 1 k 1") & rearrange(columns, "j l -> 1 j 1 l")
    return rearrange(both, "i j k l -> (i j) (k l)")


def cached_grid_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Mask:
    """grid_mask, cached: it has (height x width)^2 entries and all layers of a level share it."""
    return _constant_mask(height, width, kernel_size, device)[0]


@constant_in_graphs  # compiled graphs hold the cached mask
def _constant_mask(height: int, width: int, kernel_size: int, device: torch.device) -> tuple[Mask]:
    """The cached mask, in a tuple: the compiler gives bare tensors of one function the same name, and grids collide."""
    return (_kept_mask(height, width, kernel_size, device),)


@lru_cache(maxsize=32)
def _kept_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Mask:
    with ordinary_tensors():
        return grid_mask(height, width, kernel_size, device)
