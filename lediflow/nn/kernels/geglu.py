"""Triton kernels of the gate: value * gelu(gate), and its gradient by both halves in one pass.

Arithmetic is float32 whatever the tensors' dtype. The compiler's own code for the gradient evaluates the gate once for
each half, because the halves meet in one tensor.
"""

import triton
import triton.language as tl

ROOT_HALF = tl.constexpr(0.7071067811865476)
DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)


@triton.jit
def entries(count, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The entries of this program's block: in the product, of the value, of the gate, and which exist."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = index // WIDTH * (2 * WIDTH) + index % WIDTH
    return index, value, value + WIDTH, index < count


@triton.jit
def forward_kernel(both, out, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    index, of_value, of_gate, exists = entries(count, WIDTH, BLOCK)
    value = tl.load(both + of_value, mask=exists, other=0.0).to(tl.float32)
    gate = tl.load(both + of_gate, mask=exists, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.erf(gate * ROOT_HALF)  # gelu(x) = x * P(normal < x)
    tl.store(out + index, (value * gate * share).to(out.dtype.element_ty), mask=exists)


@triton.jit
def backward_kernel(both, grad_out, grad_both, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    index, of_value, of_gate, exists = entries(count, WIDTH, BLOCK)
    value = tl.load(both + of_value, mask=exists, other=0.0).to(tl.float32)
    gate = tl.load(both + of_gate, mask=exists, other=0.0).to(tl.float32)
    gradient = tl.load(grad_out + index, mask=exists, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.erf(gate * ROOT_HALF)
    slope = share + gate * DENSITY_AT_ZERO * tl.exp(-0.5 * gate * gate)
    by_value, by_gate = gradient * gate * share, gradient * value * slope
    tl.store(grad_both + of_value, by_value.to(grad_both.dtype.element_ty), mask=exists)
    tl.store(grad_both + of_gate, by_gate.to(grad_both.dtype.element_ty), mask=exists)
