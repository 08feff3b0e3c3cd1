"""Windows of neighborhood attention: the keys that a query attends to.

Along an axis of `length` tokens, query i attends to the `kernel_size` keys that start at

    first(i) = clamp(i - kernel_size // 2, 0, length - kernel_size),

so the window is centred where possible and is shifted at the border: it always has kernel_size keys.
Even kernels follow the same formula. Source: NATTEN, arXiv:2204.07143, equation 2 and its released code.
"""

from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

Mask = Bool[Tensor, "queries keys"]


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


@torch.compiler.assume_constant_result  # compiled graphs hold the cached mask
def _constant_mask(height: int, width: int, kernel_size: int, device: torch.device) -> tuple[Mask]:
    """The cached mask, in a tuple: the compiler gives bare tensors of one function the same name, and grids collide."""
    return (_kept_mask(height, width, kernel_size, device),)


@lru_cache(maxsize=32)
def _kept_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Mask:
    with torch.inference_mode(False):  # a mask created in inference mode must also work in a backward pass
        return grid_mask(height, width, kernel_size, device)
