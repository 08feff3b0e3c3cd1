"""Triton kernels for NVIDIA GPUs; each implements a plain PyTorch function of lediflow.nn.

    neighborhood   lediflow.nn.neighborhood.triton
    fused          lediflow.nn.attention, lediflow.nn.feedforward
    few_tokens     lediflow.nn.few_tokens
    projected      lediflow.nn.projected

Those modules make the kernels PyTorch operators and contain the definitions that they must match, forward and backward.
The kernel modules import Triton, which is part of PyTorch's CUDA builds, and are imported at the first use.
"""

import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op

from lediflow.nn.compiler import constant_in_graphs
from lediflow.nn.forward_mode import is_forward_mode

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HAS_TRITON = find_spec("triton") is not None

# set by tests: Triton's interpreter (TRITON_INTERPRET=1) runs the kernels on CPUs, slowly
interpreted = False


class Operator:
    """The PyTorch operator `lediflow::name`, which starts Triton kernels; compiled models have no graph break there.

    Registering an operator imports Triton and PyTorch's compiler, which takes as long as importing PyTorch. Therefore
    operators are registered by the first call of any of them, in eager mode or while the compiler traces it, and all
    together: a backward operator is first called in another thread, or inside a tracing.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self.function = name, function
        self.gradient: tuple[Callable[..., Any], Callable[..., None]] | None = None
        _unregistered.append(self)

    def register_autograd(
        self, differentiate: Callable[..., Any], *, setup_context: Callable[..., None]
    ) -> None:
        """Set the backward pass, as `torch.library.register_autograd` does; before the first call."""
        self.gradient = (differentiate, setup_context)

    def __call__(self, *arguments: Any) -> Any:
        register_operators()
        return getattr(torch.ops.lediflow, self.name).default(*arguments)


_unregistered: list[Operator] = []
_registration = threading.Lock()


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorator: the function becomes the operator `lediflow::name`; its annotations give the operator's schema."""
    return partial(Operator, name)


@constant_in_graphs
def register_operators() -> None:
    """Register the operators that are declared and not yet registered."""
    with _registration:
        while _unregistered:
            declared = _unregistered[-1]
            registered: Any = triton_op(f"lediflow::{declared.name}", declared.function, mutates_args={})
            if declared.gradient is not None:
                differentiate, setup_context = declared.gradient
                registered.register_autograd(differentiate, setup_context=setup_context)
            _unregistered.pop()


@constant_in_graphs
def missing(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton kernels do not support such tensors; None if they do."""
    if is_forward_mode():
        return "the Triton kernels have no forward-mode derivative"
    if device.type != "cuda" and not interpreted:
        return f"Triton kernels run on GPUs, not on {device.type}"
    if dtype not in DTYPES:
        return "the Triton kernels take float32, float16 and bfloat16 only"
    if not HAS_TRITON:
        return "Triton is not installed; PyTorch's CUDA builds bring it"
    return None


def by_position(x: Tensor) -> Tensor:
    """Heads, "batch height width heads head_dim", copied unless tokens have one stride and channels are contiguous."""
    is_regular = x.stride(-1) == 1 and x.stride(1) == x.shape[2] * x.stride(2)
    return x if is_regular else x.contiguous()


def strides(*tensors: Tensor) -> list[int]:
    """Strides from image to image, position to position, and head to head, of each tensor of heads."""
    return [stride for x in tensors for stride in (x.stride(0), x.stride(2), x.stride(3))]
