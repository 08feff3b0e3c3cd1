"""Triton kernels of the gate: value * gelu(gate), and the gradients of both halves in one pass.

Arithmetic is in float32 whatever the tensors' dtype. torch.compile's code for the gradient evaluates the gate twice,
once for each half, because both halves are in one tensor.
"""

import triton
import triton.language as tl

ROOT_HALF = tl.constexpr(0.7071067811865476)
DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)


@triton.jit
def entries(rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of this program's block in the output and of its values in the input, and a mask of valid entries."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return row * WIDTH + column, row * (2 * WIDTH) + column, (row < rows) & (column < WIDTH)


@triton.jit
def geglu(both, out, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    of_out, of_value, exists = entries(rows, WIDTH, ROWS, COLUMNS)
    value = tl.load(both + of_value, mask=exists, other=0.0).to(tl.float32)
    gate = tl.load(both + of_value + WIDTH, mask=exists, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.erf(gate * ROOT_HALF)  # gelu(x) = x * P(normal < x)
    tl.store(out + of_out, (value * gate * share).to(out.dtype.element_ty), mask=exists)


@triton.jit
def geglu_gradient(
    both, grad_out, grad_both, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    of_out, of_value, exists = entries(rows, WIDTH, ROWS, COLUMNS)
    value = tl.load(both + of_value, mask=exists, other=0.0).to(tl.float32)
    gate = tl.load(both + of_value + WIDTH, mask=exists, other=0.0).to(tl.float32)
    gradient = tl.load(grad_out + of_out, mask=exists, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.erf(gate * ROOT_HALF)
    slope = share + gate * DENSITY_AT_ZERO * tl.exp(-0.5 * gate * gate)
    by_value, by_gate = gradient * gate * share, gradient * value * slope
    tl.store(grad_both + of_value, by_value.to(grad_both.dtype.element_ty), mask=exists)
    tl.store(grad_both + of_value + WIDTH, by_gate.to(grad_both.dtype.element_ty), mask=exists)
