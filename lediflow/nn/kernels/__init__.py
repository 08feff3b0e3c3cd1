"""Triton kernels for NVIDIA GPUs; each implements a plain PyTorch function of lediflow.nn.

    neighborhood   lediflow.nn.neighborhood.triton
    fused          lediflow.nn.attention, lediflow.nn.feedforward

Those modules register the kernels as PyTorch operators and contain the definitions that they must match, forward and
backward. The kernel modules import Triton, which is part of PyTorch's CUDA builds, and are imported at the first use.
"""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch.library import triton_op

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HAS_TRITON = find_spec("triton") is not None

# set by tests: Triton's interpreter (TRITON_INTERPRET=1) runs the kernels on CPUs, slowly
interpreted = False


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a function that starts Triton kernels as the PyTorch operator `lediflow::name`.

    Without Triton, PyTorch warns about each operator. These warnings are suppressed, because `missing` gives the reason
    when a kernel is requested.
    """

    def registered(function: Callable[..., Any]) -> Any:
        logger = logging.getLogger("torch._library.triton")
        was_disabled, logger.disabled = logger.disabled, logger.disabled or not HAS_TRITON
        try:
            return triton_op(f"lediflow::{name}", function, mutates_args={})
        finally:
            logger.disabled = was_disabled

    return registered


@torch.compiler.assume_constant_result
def missing(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton kernels do not support such tensors; None if they do."""
    if device.type != "cuda" and not interpreted:
        return f"Triton kernels run on GPUs, not on {device.type}"
    if dtype not in DTYPES:
        return "the Triton kernels take float32, float16 and bfloat16 only"
    if not HAS_TRITON:
        return "Triton is not installed; PyTorch's CUDA builds bring it"
    return None
