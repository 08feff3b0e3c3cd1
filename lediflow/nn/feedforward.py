"""Gated feed-forward block: x + W_down (a * gelu(g)), (a, g) = W_up norm(x).

The block is residual and its last projection is initialised to zero. Levels and the mapping network both use it.
Dropout, if any, is applied to the gated channels, before that projection.

`plain_geglu` defines the gate a * gelu(g); on GPUs `geglu` calls a Triton kernel instead, forward and backward.
Sources: GEGLU, Shazeer, arXiv:2002.05202; dropout as in k-diffusion's `image_transformer_v2`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.library import wrap_triton

from lediflow.nn import kernels
from lediflow.nn.dropout import DropsEntries
from lediflow.nn.norms import norm_for
from lediflow.nn.shapes import Condition, SampleKeys

# rows and columns of a program of the Triton kernels; a single image has too few rows for large ones
BLOCK, BLOCK_OF_ONE = (8, 256), (2, 512)


class FeedForward(DropsEntries):
    """Residual gated feed-forward block with an optional condition."""

    def __init__(
        self, width: int, d_ff: int, condition_width: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.gate = geglu
        self.norm = norm_for(width, condition_width)
        self.up_proj = nn.Linear(width, 2 * d_ff, bias=False)
        self.down_proj = nn.Linear(d_ff, width, bias=False)
        nn.init.zeros_(self.down_proj.weight)

    def forward(
        self,
        x: Float[Tensor, "*batch channels"],
        condition: Condition | None = None,
        keys: SampleKeys | None = None,
    ) -> Float[Tensor, "*batch channels"]:
        gated = self.gate(self.up_proj(self.norm(x, condition)))
        return x + self.down_proj(self.dropped(gated, keys))


def geglu(both: Float[Tensor, "*batch two_widths"]) -> Float[Tensor, "*batch width"]:
    """The first half of the channels times gelu of the second, by the Triton kernel if it can be used."""
    if kernels.missing(both.device, both.dtype) is None:
        return _geglu(both)
    return plain_geglu(both)


def geglu_in_float8(both: Float[Tensor, "*batch two_widths"]) -> Float[Tensor, "*batch width"]:
    """`geglu` rounded to E4M3 (nn/low_precision.py), without a gradient; numbers beyond 448 become 448."""
    if kernels.missing(both.device, both.dtype) is None:
        gated: Tensor = _geglu_in_float8(both)
        return gated
    return plain_geglu(both).clamp(-448, 448).to(torch.float8_e4m3fn)


def plain_geglu(both: Float[Tensor, "*batch two_widths"]) -> Float[Tensor, "*batch width"]:
    """The definition of `geglu`, in plain PyTorch."""
    value, gate = both.chunk(2, dim=-1)
    return value * F.gelu(gate)


@kernels.operator("geglu")
def _geglu(both: Tensor) -> Tensor:
    return _run_geglu(both, both.dtype)


@kernels.operator("geglu_in_float8")
def _geglu_in_float8(both: Tensor) -> Tensor:
    return _run_geglu(both, torch.float8_e4m3fn)


def _run_geglu(both: Tensor, dtype: torch.dtype) -> Tensor:
    from lediflow.nn.kernels import fused as kernel

    both = both.contiguous()
    out = both.new_empty(*both.shape[:-1], both.shape[-1] // 2, dtype=dtype)
    wrap_triton(kernel.geglu)[programs(out)](both, out, *sizes(out), *block(out), largest(dtype), num_warps=4)
    return out


@kernels.operator("geglu_backward")
def _geglu_backward(both: Tensor, grad_out: Tensor) -> Tensor:
    from lediflow.nn.kernels import fused as kernel

    both, grad_out = both.contiguous(), grad_out.contiguous()
    grad_both = torch.empty_like(both)
    wrap_triton(kernel.geglu_gradient)[programs(grad_out)](
        both, grad_out, grad_both, *sizes(grad_out), *block(grad_out), num_warps=4
    )
    return grad_both


def sizes(out: Tensor) -> tuple[int, int]:
    """Number of rows, and of channels per row."""
    return out.numel() // out.shape[-1], out.shape[-1]


def programs(out: Tensor) -> tuple[int]:
    """Grid of programs: one for each block of rows and columns."""
    (rows, width), (most_rows, most_columns) = sizes(out), block(out)
    return (-(-rows // most_rows) * -(-width // most_columns),)


def largest(dtype: torch.dtype) -> float:
    """The largest number in 8 bits, beyond which a conversion may give NaN; 0 for wider numbers."""
    return torch.finfo(dtype).max if dtype.itemsize == 1 else 0.0


def block(out: Tensor) -> tuple[int, int]:
    """Rows and columns of a program."""
    return BLOCK_OF_ONE if out.shape[0] == 1 else BLOCK


def _save(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_out: Tensor) -> Tensor:
    return _geglu_backward(*ctx.saved_tensors, grad_out)


_geglu.register_autograd(_differentiate, setup_context=_save)
