"""Neighborhood attention: one call, several routes to the same numbers.

Each token attends to the kernel x kernel square around it. Tensors are "batch height width heads head_dim".

    dense    the definition, any device and dtype: the oracle
    sdpa     PyTorch's fused attention with a mask over the whole grid: the fastest on CPUs and small grids
    triton   this package's own kernels: the fastest on NVIDIA GPUs
    natten   the NATTEN library's kernels, as far as the installation has them
    flex     PyTorch's FlexAttention over tokens in tile order
    auto     the fastest of these, measured once for each problem and remembered

Source: arXiv:2204.07143.
"""

from difflib import get_close_matches

import torch

from lediflow.nn.neighborhood import dense, flex, natten, sdpa, triton
from lediflow.nn.neighborhood.choice import fastest_route
from lediflow.nn.neighborhood.memory import Memory, default_file
from lediflow.nn.neighborhood.protocol import NeighborhoodAttention, Problem, Route
from lediflow.nn.shapes import Heads

__all__ = ["ROUTES", "NeighborhoodAttention", "Problem", "check_route", "neighborhood_attention", "route_for"]

ROUTES = {
    "dense": Route(dense.attention, dense.missing),
    "sdpa": Route(sdpa.attention, sdpa.missing),
    "triton": Route(triton.attention, triton.missing),
    "natten": Route(natten.attention, natten.missing),
    "flex": Route(flex.attention, flex.missing, compiles=True),
}
CANDIDATES = {name: route for name, route in ROUTES.items() if name != "dense"}
AUTO = "auto"
memory = Memory(default_file())


def neighborhood_attention(
    q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float | None = None, route: str = AUTO
) -> Heads:
    """softmax(scale q k^T) v over each query's window; scale defaults to 1 / sqrt(head_dim).

    Raises ValueError for tensors of different shapes, a kernel that is not inside the grid, an unknown route, and
    a named route that cannot serve: only "auto" chooses.
    """
    check_tensors(q, k, v, kernel_size)
    _, height, width, num_heads, head_dim = q.shape
    is_training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    name = route_for(
        route,
        int(height),
        int(width),
        num_heads,
        head_dim,
        kernel_size,
        q.dtype,
        q.device,
        is_training,
        torch.compiler.is_compiling(),
    )
    return ROUTES[name].attention(q, k, v, kernel_size, scale=head_dim**-0.5 if scale is None else scale)


@torch.compiler.assume_constant_result  # decided while compiling: a graph contains one route
def route_for(
    name: str,
    height: int,
    width: int,
    num_heads: int,
    head_dim: int,
    kernel_size: int,
    dtype: torch.dtype,
    device: torch.device,
    is_training: bool,
    is_compiling: bool,
) -> str:
    """The name of the route that serves a problem: the named one, or the fastest for "auto"."""
    problem = Problem(height, width, num_heads, head_dim, kernel_size, dtype, device, is_training)
    if name == AUTO:
        can_measure = {
            name: route for name, route in CANDIDATES.items() if not (is_compiling and route.compiles)
        }
        return fastest_route(problem, can_measure, memory)
    check_route(name)
    missing = ROUTES[name].missing(problem)
    if missing is not None:
        raise ValueError(f'attention route {name!r}, {problem}: {missing}; mend that, or use route "auto"')
    return name


def check_route(name: str) -> None:
    """Refuse an unknown route."""
    if name != AUTO and name not in ROUTES:
        nearest = get_close_matches(name, ROUTES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else 'use "auto"'
        raise ValueError(f"attention route {name!r}: known are {AUTO}, {', '.join(ROUTES)}; {hint}")


def check_tensors(q: Heads, k: Heads, v: Heads, kernel_size: int) -> None:
    """Refuse tensors that do not match and windows that do not fit."""
    if q.ndim != 5 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(
            f"neighborhood attention: q, k and v must share one shape, batch x height x width x heads x head_dim; "
            f"found {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    height, width = q.shape[1:3]
    if not 1 <= kernel_size <= min(height, width):
        problem = "is wider than" if kernel_size > 1 else "does not fit"
        raise ValueError(
            f"neighborhood attention: kernel {kernel_size} {problem} its {height}x{width} token grid; "
            f"lower the level's kernel_size or start from a larger image"
        )
