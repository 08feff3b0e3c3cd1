"""Neighborhood attention by NATTEN's kernels; the only module that imports `natten`.

NATTEN has several backends, and an installation has some of them: the CUDA kernels need a wheel for the GPU model;
without one only FlexAttention is available, which has no backward pass on CPUs.
Source: arXiv:2403.04690; https://natten.org.
"""

from functools import lru_cache
from importlib.util import find_spec

import torch

from lediflow.nn.compiler import constant_in_graphs
from lediflow.nn.neighborhood.protocol import Problem
from lediflow.nn.shapes import Heads

# On an H100 the older CUTLASS kernels are faster than the Hopper ones at kernel 7, most clearly in the backward pass
# (docs/performance_experiments.md).
PREFERENCE = ("blackwell-fna", "cutlass-fna", "hopper-fna", "flex-fna")
SMALLEST_KERNEL = 2
HOW = "a wheel for your GPU and PyTorch is listed at https://natten.org/install"


def attention(q: Heads, k: Heads, v: Heads, kernel_size: int, *, scale: float) -> Heads:
    """softmax(scale q k^T) v over each query's window."""
    from natten import na2d

    if torch.compiler.is_dynamo_compiling() and q.device.type == "cpu":
        raise ValueError(
            "attention route 'natten': what natten has for CPUs cannot be compiled into a model; use route \"sdpa\" "
            "there, or do not compile"
        )
    if not torch.is_grad_enabled():
        q, k, v = q.detach(), k.detach(), v.detach()
    backend = chosen_backend(
        q.shape[-1], q.dtype, q.device, q.requires_grad or k.requires_grad or v.requires_grad
    )
    return na2d(q, k, v, kernel_size=kernel_size, scale=scale, backend=backend)


def missing(problem: Problem) -> str | None:
    """Why the installed NATTEN does not support a problem; None if it does."""
    if find_spec("natten") is None:
        return f"natten is not installed; {HOW}"
    if problem.kernel_size < SMALLEST_KERNEL:
        return f"natten takes kernels of {SMALLEST_KERNEL} or more"
    has_backend = chosen_backend(problem.head_dim, problem.dtype, problem.device, problem.is_training)
    if has_backend is None:
        return f"the installed natten has no backend for this dtype, head dim and device; {HOW}"
    if problem.device.type == "cpu" and problem.is_training:
        return "natten has no backward pass on CPUs"
    return None


@constant_in_graphs
def chosen_backend(head_dim: int, dtype: torch.dtype, device: torch.device, is_training: bool) -> str | None:
    """The preferred backend among those that support the problem; None if there is none."""
    return _chosen_backend(head_dim, dtype, device, is_training)


@lru_cache(maxsize=64)
def _chosen_backend(head_dim: int, dtype: torch.dtype, device: torch.device, is_training: bool) -> str | None:
    from natten.backends import get_compatible_backends

    probe = torch.empty(1, 1, 1, 1, head_dim, dtype=dtype, device=device, requires_grad=is_training)
    found = get_compatible_backends(probe, probe, probe, torch_compile=False)
    return min(found, key=PREFERENCE.index, default=None)
