"""Neighborhood attention by this package's Triton kernels, on NVIDIA GPUs, forward and backward.

The kernels (lediflow.nn.kernels.neighborhood) read q, k and v without a copy and are registered as PyTorch operators,
so a compiled model contains them without a graph break. Triton is part of PyTorch's CUDA builds.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.library import wrap_triton

from lediflow.nn import kernels
from lediflow.nn.neighborhood.protocol import Problem
from lediflow.nn.shapes import Heads

HEAD_DIMS = (16, 32, 64, 128)


Reach = Callable[[int, int, int, int], int]  # (start, count, length, kernel_size) -> positions


class Tile(NamedTuple):
    """Tiling parameters of a kernel; the fastest values depend on the GPU, the results do not."""

    height: int
    width: int
    step_rows: int
    num_warps: int
    num_stages: int


# the fastest of 54 tilings on an H100 at head dim 64 in bfloat16 (docs/performance_experiments.md)
FORWARD = Tile(height=8, width=8, step_rows=2, num_warps=4, num_stages=3)
QUERY_GRADIENT = FORWARD._replace(step_rows=4)
KEY_VALUE_GRADIENT = FORWARD
LEAST_KEYS = 16  # of a step: products of Triton sum over 16 numbers or more
NARROW = 16  # heads of at most this many channels take more rows per step


def key_value_tile(x: Heads) -> Tile:
    """Tiling of the kernel for the gradients of keys and values."""
    return KEY_VALUE_GRADIENT._replace(step_rows=8) if x.shape[-1] <= NARROW else KEY_VALUE_GRADIENT


def fitting(tile: Tile, x: Heads) -> Tile:
    """The tile, reduced for wide dtypes: shared memory per block is 99 KB on an RTX 3090."""
    if x.dtype != torch.float32:
        return tile
    return tile._replace(step_rows=2 if x.shape[-1] < max(HEAD_DIMS) else 1, num_stages=1)


def missing(problem: Problem) -> str | None:
    """Why the kernels do not support a problem; None if they do."""
    if (reason := kernels.missing(problem.device, problem.dtype)) is not None:
        return reason
    if problem.head_dim not in HEAD_DIMS:
        return f"the kernels take head dims {', '.join(map(str, HEAD_DIMS))} only"
    return None


def attention(q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads:
    """softmax(scale q k^T) v over each query's window."""
    return _forward(q, k, v, kernel_size, scale)[0]


@kernels.operator("neighborhood_attention")
def _forward(q: Tensor, k: Tensor, v: Tensor, kernel_size: int, scale: float) -> tuple[Tensor, Tensor]:
    from lediflow.nn.kernels import neighborhood as kernel

    q, k, v = (with_dense_channels(x) for x in (q, k, v))
    o = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    wrap_triton(kernel.attention)[programs(q, FORWARD)](
        q, k, v, o, lse, *strides(q, k, v, o),
        *sizes(q), **constants(q, kernel_size, scale, FORWARD, reach=key_reach),
    )  # fmt: skip
    return o, lse


@kernels.operator("neighborhood_attention_backward")
def _backward(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, g: Tensor, kernel_size: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    from lediflow.nn.kernels import neighborhood as kernel

    q, k, v, o, g = (with_dense_channels(x) for x in (q, k, v, o, g))
    dq, dk, dv = empty_gradients(q, k)
    delta = torch.empty_like(lse)
    wrap_triton(kernel.query_gradient)[programs(q, QUERY_GRADIENT)](
        q, k, v, o, g, lse, delta, dq, *strides(q, k, v, o, g, dq),
        *sizes(q), **constants(q, kernel_size, scale, QUERY_GRADIENT, reach=key_reach),
    )  # fmt: skip
    tile = key_value_tile(q)
    wrap_triton(kernel.key_value_gradient)[programs(q, tile)](
        q, k, v, g, lse, delta, dk, dv, *strides(q, k, v, g, dk),
        *sizes(q), **constants(q, kernel_size, scale, tile, reach=query_reach),
    )  # fmt: skip
    return dq, dk, dv


def _save(ctx, inputs, output) -> None:
    q, k, v, ctx.kernel_size, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)


def _differentiate(ctx, g: Tensor, _: Tensor):
    return *_backward(*ctx.saved_tensors, g, ctx.kernel_size, ctx.scale), None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def empty_gradients(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Uninitialised gradients of q, k and v; the last two have equal strides, because one kernel writes both."""
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(k)


def with_dense_channels(x: Tensor) -> Tensor:
    """x, copied unless each head's channels are contiguous, as the kernels need."""
    return x if x.stride(-1) == 1 else x.contiguous()


def programs(x: Tensor, tile: Tile) -> tuple[int, int]:
    """Grid of programs: one for each tile of each head of each image."""
    batch, height, width, heads, _ = x.shape
    return -(-height // tile.height) * -(-width // tile.width), batch * heads


def strides(*tensors: Tensor) -> list[int]:
    """Image, row, column and head strides of each tensor."""
    return [stride for x in tensors for stride in x.stride()[:4]]


def sizes(x: Tensor) -> tuple[int, int, int]:
    """Number of heads, height and width of x."""
    return x.shape[3], x.shape[1], x.shape[2]


def constants(
    x: Tensor, kernel_size: int, scale: float, tile: Tile, *, reach: Reach
) -> dict[str, int | float | str]:
    """Compile-time constants of a kernel."""
    width, tile = x.shape[2], fitting(tile, x)
    reached = max(reach(start, tile.width, width, kernel_size) for start in range(0, width, tile.width))
    columns = 1 << (reached - 1).bit_length()
    return {
        "SCALE": scale,
        "KERNEL": kernel_size,
        "HEAD_DIM": x.shape[-1],
        "PRECISION": "ieee" if x.dtype == torch.float32 else "tf32",
        "TILE_HEIGHT": tile.height,
        "TILE_WIDTH": tile.width,
        "STEP_ROWS": max(tile.step_rows, LEAST_KEYS // columns),
        "COLUMNS": columns,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


def key_reach(start: int, count: int, length: int, kernel_size: int) -> int:
    """Number of keys in the windows of queries start ... start + count - 1 together, along one axis."""
    last = min(start + count, length) - 1
    return first_key(last, length, kernel_size) + kernel_size - first_key(start, length, kernel_size)


def query_reach(start: int, count: int, length: int, kernel_size: int) -> int:
    """Number of queries whose windows contain a key among start ... start + count - 1, along one axis."""
    last = min(start + count, length) - 1
    seers = [
        query for query in range(length)
        if first_key(query, length, kernel_size) <= last
        and first_key(query, length, kernel_size) + kernel_size > start
    ]  # fmt: skip
    return len(seers)


def first_key(query: int, length: int, kernel_size: int) -> int:
    return min(max(query - kernel_size // 2, 0), length - kernel_size)
