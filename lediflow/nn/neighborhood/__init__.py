"""Neighborhood attention: one function, several implementations (routes) with equal results.

Each token attends to the kernel x kernel square around it. Tensors are "batch height width heads head_dim".

    dense    the reference implementation, on any device and in any dtype
    sdpa     PyTorch's fused attention with a mask over the whole grid; the fastest on CPUs
    triton   this package's kernels; the fastest on NVIDIA GPUs
    natten   the NATTEN library's kernels, if the installation has them
    flex     PyTorch's FlexAttention over tokens in tile order
    auto     the fastest of these, measured once per problem and cached

Source: arXiv:2204.07143.
"""

from operator import index
from typing import SupportsIndex

import torch

from lediflow.nn import forward_mode
from lediflow.nn.neighborhood.protocol import Problem, RouteUnavailableError
from lediflow.nn.neighborhood.routes import AUTO, ROUTES, check_route, route_for
from lediflow.nn.shapes import Heads

__all__ = [
    "ROUTES",
    "Problem",
    "RouteUnavailableError",
    "check_route",
    "neighborhood_attention",
]


def neighborhood_attention(
    q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float | None = None, route: str = AUTO
) -> Heads:
    """softmax(scale q k^T) v over each query's window; scale defaults to 1 / sqrt(head_dim).

    Raises ValueError for tensors of different shapes, dtypes or devices, a kernel that is not a whole number or does
    not fit the grid, an unknown route, and a named route that does not support the problem (there is no fallback; use
    "auto").
    """
    if not isinstance(kernel_size, int):
        kernel_size = whole_number(kernel_size)
    check_tensors(q, k, v, kernel_size)
    _, height, width, num_heads, head_dim = q.shape
    scale = head_dim**-0.5 if scale is None else scale
    is_training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    problem = (int(height), int(width), num_heads, head_dim, kernel_size, q.dtype, q.device, is_training)
    route = forward_mode.ROUTE if forward_mode.is_forward_mode() else route
    name = route_for(route, *problem, torch.compiler.is_compiling())
    return ROUTES[name].attention(q, k, v, kernel_size, scale=scale)


def whole_number(kernel_size: SupportsIndex) -> int:
    """The int of another integer, such as NumPy's; ValueError for anything else."""
    try:
        return index(kernel_size)
    except TypeError:
        raise ValueError(
            f"neighborhood attention: kernel_size={kernel_size!r}; give one whole number, the side of the window"
        ) from None


def check_tensors(q: Heads, k: Heads, v: Heads, kernel_size: int) -> None:
    """ValueError for tensors of different shapes, dtypes or devices, and for windows that do not fit the grid."""
    if q.ndim != 5 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            f"neighborhood attention: q, k and v must share one shape, batch x height x width x heads x head_dim; "
            f"found {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        found = ", ".join(f"{str(x.dtype).removeprefix('torch.')} on {x.device}" for x in (q, k, v))
        raise ValueError(f"neighborhood attention: q, k and v must share dtype and device; found {found}")
    height, width = q.shape[1:3]
    if not 1 <= kernel_size <= min(height, width):
        problem = "is wider than" if kernel_size > 1 else "does not fit"
        raise ValueError(
            f"neighborhood attention: kernel {kernel_size} {problem} its {height}x{width} token grid; "
            f"lower the level's kernel_size or start from a larger image"
        )
