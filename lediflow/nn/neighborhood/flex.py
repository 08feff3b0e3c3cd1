"""Neighborhood attention by FlexAttention, over tokens in tile order.

Tokens are reordered into 8 x 8 tiles, so that a block of consecutive keys is a patch of the image and a window
overlaps few blocks; the others are skipped. Grids that 8 does not divide are padded: padded keys are masked, and
padded queries are removed. FlexAttention has no backward pass on CPUs.
Source: https://pytorch.org/blog/flexattention/.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lediflow.nn.cached_tensors import ordinary_tensors
from lediflow.nn.compiler import constant_in_graphs
from lediflow.nn.neighborhood.protocol import Problem
from lediflow.nn.shapes import Heads

TILE = 8
BLOCK = 128  # tokens: two tiles
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SMALLEST_HEAD_DIM = 16  # smallest that FlexAttention's GPU kernels support


class Grid(NamedTuple):
    """Height and width of a token grid; properties give the tiles that cover it."""

    height: int
    width: int

    @property
    def tiles(self) -> tuple[int, int]:
        return -(-self.height // TILE), -(-self.width // TILE)

    @property
    def tokens(self) -> int:
        rows, columns = self.tiles
        return rows * columns * TILE**2


def missing(problem: Problem) -> str | None:
    """Why FlexAttention does not support a problem; None if it does."""
    if problem.dtype not in DTYPES:
        return "FlexAttention takes float32, float16 and bfloat16 only"
    if problem.device.type == "cpu":
        return "FlexAttention has no backward pass on CPUs" if problem.is_training else None
    if problem.head_dim < SMALLEST_HEAD_DIM:
        return f"FlexAttention needs head dims of {SMALLEST_HEAD_DIM} or more on GPUs"
    return None


def attention(q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads:
    """softmax(scale q k^T) v over each query's window."""
    if not torch.is_grad_enabled():
        q, k, v = q.detach(), k.detach(), v.detach()
    if torch.compiler.is_compiling() and q.device.type == "cpu":
        raise ValueError(
            "attention route 'flex': PyTorch's compiler cannot lower FlexAttention over re-ordered tokens on CPUs; "
            'use route "sdpa" there, or do not compile'
        )
    grid = Grid(q.shape[1], q.shape[2])
    mask = block_mask(grid, kernel_size, q.device)
    mixed = kernel(q.device)(*(to_tiles(x, grid) for x in (q, k, v)), block_mask=mask, scale=scale)
    return from_tiles(mixed, grid)


def to_tiles(x: Heads, grid: Grid) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Tokens in order of tiles, row-major within each; zeros outside of the grid."""
    rows, columns = grid.tiles
    x = F.pad(x, (0, 0, 0, 0, 0, columns * TILE - grid.width, 0, rows * TILE - grid.height))
    return rearrange(x, "b (y p) (x q) n d -> b n (y x p q) d", p=TILE, q=TILE)


def from_tiles(x: Float[Tensor, "batch heads tokens head_dim"], grid: Grid) -> Heads:
    """The inverse of `to_tiles`."""
    rows, _ = grid.tiles
    laid_out = rearrange(x, "b n (y x p q) d -> b (y p) (x q) n d", y=rows, p=TILE, q=TILE)
    return laid_out[:, : grid.height, : grid.width]


def kernel(device: torch.device) -> Any:
    """FlexAttention; compiled on GPUs (only then it skips blocks), unless a compilation is in progress already."""
    if torch.compiler.is_compiling() or device.type == "cpu":
        return flex_attention
    return _always_compiled


def _always_compiled(*arguments: Any, **options: Any) -> Any:
    """Compiled FlexAttention, also inside torch.compiler.disable."""
    with torch.compiler.set_stance("default"):
        return _compiled_kernel()(*arguments, **options)


@lru_cache(maxsize=1)
def _compiled_kernel() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def position(index: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Row and column of the token at an index in tile order."""
    tile, inside = index // TILE**2, index % TILE**2
    _, columns = grid.tiles
    return tile // columns * TILE + inside // TILE, tile % columns * TILE + inside % TILE


def visibility(grid: Grid, kernel_size: int) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention's mask function: whether a query attends to a key, given indices in tile order."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        (row, column), (key_row, key_column) = position(query, grid), position(key, grid)
        top = (row - kernel_size // 2).clamp(0, grid.height - kernel_size)
        left = (column - kernel_size // 2).clamp(0, grid.width - kernel_size)
        in_rows = (key_row >= top) & (key_row < top + kernel_size)
        return in_rows & (key_column >= left) & (key_column < left + kernel_size)

    return sees


def block_mask(grid: Grid, kernel_size: int, device: torch.device) -> BlockMask:
    """Which blocks of keys each block of queries needs; the tables are cached, because compiled graphs hold them."""
    length, (kv_count, kv_indices, q_count, q_indices) = grid.tokens, tables(*grid, kernel_size, device)
    return BlockMask(
        seq_lengths=(length, length),
        kv_num_blocks=kv_count,
        kv_indices=kv_indices,
        full_kv_num_blocks=None,
        full_kv_indices=None,
        q_num_blocks=q_count,
        q_indices=q_indices,
        full_q_num_blocks=None,
        full_q_indices=None,
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=visibility(grid, kernel_size),
    )


@constant_in_graphs
def tables(height: int, width: int, kernel_size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Counts and indices of the key blocks of each query block, then of the query blocks of each key block."""
    return _tables(Grid(height, width), kernel_size, device)


@lru_cache(maxsize=32)
def _tables(grid: Grid, kernel_size: int, device: torch.device) -> tuple[Tensor, ...]:
    with ordinary_tensors():
        mask = create_block_mask(
            visibility(grid, kernel_size), None, None, grid.tokens, grid.tokens, str(device), BLOCK_SIZE=BLOCK
        )
    assert mask.q_num_blocks is not None and mask.q_indices is not None
    return mask.kv_num_blocks, mask.kv_indices, mask.q_num_blocks, mask.q_indices
