"""The gate of a feed-forward block: value * gelu(gate), where (value, gate) are the halves of one projection.

Call `geglu`. `plain_geglu` is the definition; on GPUs a Triton kernel replaces it, forward and backward.
Source: Shazeer, arXiv:2002.05202.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.library import wrap_triton

from lediflow.nn import kernels

ROWS, COLUMNS = 8, 256  # block size of a Triton program


def geglu(both: Float[Tensor, "*batch two_widths"]) -> Float[Tensor, "*batch width"]:
    """The first half of the channels times gelu of the second, by the Triton kernel if it can be used."""
    if kernels.missing(both.device, both.dtype) is None:
        return _forward(both)
    return plain_geglu(both)


def plain_geglu(both: Float[Tensor, "*batch two_widths"]) -> Float[Tensor, "*batch width"]:
    value, gate = both.chunk(2, dim=-1)
    return value * F.gelu(gate)


@kernels.operator("geglu")
def _forward(both: Tensor) -> Tensor:
    from lediflow.nn.kernels import geglu as kernel

    both = both.contiguous()
    out = both.new_empty(*both.shape[:-1], both.shape[-1] // 2)
    wrap_triton(kernel.geglu)[programs(out)](both, out, *sizes(out), ROWS, COLUMNS, num_warps=4)
    return out


@kernels.operator("geglu_backward")
def _backward(both: Tensor, grad_out: Tensor) -> Tensor:
    from lediflow.nn.kernels import geglu as kernel

    both, grad_out = both.contiguous(), grad_out.contiguous()
    grad_both = torch.empty_like(both)
    wrap_triton(kernel.geglu_gradient)[programs(grad_out)](
        both, grad_out, grad_both, *sizes(grad_out), ROWS, COLUMNS, num_warps=4
    )
    return grad_both


def sizes(out: Tensor) -> tuple[int, int]:
    """Number of rows, and of channels per row."""
    return out.numel() // out.shape[-1], out.shape[-1]


def programs(out: Tensor) -> tuple[int, int]:
    """Grid of programs: one for each block of rows and columns."""
    rows, width = sizes(out)
    return -(-rows // ROWS), -(-width // COLUMNS)


def _save(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_out: Tensor) -> Tensor:
    return _backward(*ctx.saved_tensors, grad_out)


_forward.register_autograd(_differentiate, setup_context=_save)
