"""The gate of a feed-forward block: value * gelu(gate), where (value, gate) are the halves of one projection.

`geglu` is its use; `plain_geglu` is the definition, which a Triton kernel replaces on GPUs, forward and backward.
Source: Shazeer, arXiv:2002.05202.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lediflow.nn import kernels

BLOCK = 2048  # entries per program


def geglu(both: Float[Tensor, "*batch two_widths"]) -> Float[Tensor, "*batch width"]:
    """The first half of the channels times gelu of the second, by the fastest means there is."""
    if kernels.missing(both.device, both.dtype) is None:
        return _forward(both)
    return plain_geglu(both)


def plain_geglu(both: Float[Tensor, "*batch two_widths"]) -> Float[Tensor, "*batch width"]:
    value, gate = both.chunk(2, dim=-1)
    return value * F.gelu(gate)


@torch.library.custom_op("lediflow::geglu", mutates_args=())
def _forward(both: Tensor) -> Tensor:
    from lediflow.nn.kernels.geglu import forward_kernel

    both = both.contiguous()
    width = both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], width)
    forward_kernel[(-(-out.numel() // BLOCK),)](both, out, out.numel(), WIDTH=width, BLOCK=BLOCK, num_warps=8)
    return out


@torch.library.custom_op("lediflow::geglu_backward", mutates_args=())
def _backward(both: Tensor, grad_out: Tensor) -> Tensor:
    from lediflow.nn.kernels.geglu import backward_kernel

    both, grad_out = both.contiguous(), grad_out.contiguous()
    width, count = both.shape[-1] // 2, grad_out.numel()
    grad_both = torch.empty_like(both)
    backward_kernel[(-(-count // BLOCK),)](
        both, grad_out, grad_both, count, WIDTH=width, BLOCK=BLOCK, num_warps=8
    )
    return grad_both


@_forward.register_fake
def _(both: Tensor) -> Tensor:
    return both.new_empty(*both.shape[:-1], both.shape[-1] // 2)


@_backward.register_fake
def _(both: Tensor, grad_out: Tensor) -> Tensor:
    return torch.empty_like(both, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_out: Tensor) -> Tensor:
    return _backward(*ctx.saved_tensors, grad_out)


_forward.register_autograd(_differentiate, setup_context=_save)
