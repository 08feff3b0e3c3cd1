"""Triton kernels for a single image of few tokens, whose layers take less time than the launches of their kernels.

Each does in one launch what three kernels do for larger batches: `norm_gate` the norm, the up-projection and the gate
of a feed-forward block, `norm_heads` the norm, the projection to queries, keys and values, and the step from there to
attention. The norm's factor of a row is applied after the product, 1 / rms(x) ((x s) W), because the squares are
summed up in the same loop. Sums are in float32, products are of the weights' dtype.
"""

import triton
import triton.language as tl

ROOT_HALF = tl.constexpr(0.7071067811865476)


@triton.jit
def scaled_rows(x, scale, rows, exists, k, WIDTH: tl.constexpr, OFFSET: tl.constexpr, BK: tl.constexpr):
    """A block of x times the norm's scale, as operand of a product, and the block's sum of squares for each row."""
    column = k + tl.arange(0, BK)
    block = tl.load(x + rows[:, None] * WIDTH + column[None, :], mask=exists[:, None], other=0.0)
    wide = block.to(tl.float32)
    factor = tl.load(scale + column).to(tl.float32) + OFFSET
    return (wide * factor[None, :]).to(block.dtype), tl.sum(wide * wide, 1)


@triton.jit
def weight_block(weight, outputs, k, WIDTH: tl.constexpr, BK: tl.constexpr):
    """Columns k to k + BK of the weights of some outputs, transposed."""
    return tl.load(weight + outputs[None, :] * WIDTH + (k + tl.arange(0, BK))[:, None])


@triton.jit
def norm_gate(
    x, scale, weight, out, tokens,
    WIDTH: tl.constexpr, HIDDEN: tl.constexpr, OFFSET: tl.constexpr, EPS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """value * gelu(gate) of norm(x) W' for a block of tokens and of hidden channels."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    outputs = tl.program_id(1) * BN + tl.arange(0, BN)
    exists = rows < tokens
    value, gate = tl.zeros((BM, BN), tl.float32), tl.zeros((BM, BN), tl.float32)
    squares = tl.zeros((BM,), tl.float32)
    for k in range(0, WIDTH, BK):
        block, more = scaled_rows(x, scale, rows, exists, k, WIDTH, OFFSET, BK)
        squares += more
        value = tl.dot(block, weight_block(weight, outputs, k, WIDTH, BK), value, input_precision="ieee")
        gate = tl.dot(
            block, weight_block(weight, HIDDEN + outputs, k, WIDTH, BK), gate, input_precision="ieee"
        )
    factor = tl.rsqrt(squares / WIDTH + EPS)[:, None]
    value, gate = value * factor, gate * factor
    found = value * gate * (0.5 + 0.5 * tl.erf(gate * ROOT_HALF))
    tl.store(
        out + rows[:, None] * HIDDEN + outputs[None, :], found.to(out.dtype.element_ty), mask=exists[:, None]
    )


@triton.jit
def norm_heads(
    x, scale, weight, head_scale, cos, sin, out, tokens,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, OFFSET: tl.constexpr,
    NORM_EPS: tl.constexpr, HEAD_EPS: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Queries, keys or values of one head for a block of tokens, as `split_and_rotate` makes them (fused.py).

    The rotated pairs are channels of the first quarter and of the second; the upper half of a head is not rotated.
    """
    PAIRS: tl.constexpr = HEAD_DIM // 4
    side, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    exists = rows < tokens
    pair, upper = tl.arange(0, PAIRS), tl.arange(0, 2 * PAIRS)
    origin = tl.program_id(1) * HEAD_DIM
    first, second = tl.zeros((BM, PAIRS), tl.float32), tl.zeros((BM, PAIRS), tl.float32)
    rest = tl.zeros((BM, 2 * PAIRS), tl.float32)
    squares = tl.zeros((BM,), tl.float32)
    for start in range(0, WIDTH, BK):
        block, more = scaled_rows(x, scale, rows, exists, start, WIDTH, OFFSET, BK)
        squares += more
        lower = weight_block(weight, origin + pair, start, WIDTH, BK)
        first = tl.dot(block, lower, first, input_precision="ieee")
        partner = weight_block(weight, origin + PAIRS + pair, start, WIDTH, BK)
        second = tl.dot(block, partner, second, input_precision="ieee")
        higher = weight_block(weight, origin + 2 * PAIRS + upper, start, WIDTH, BK)
        rest = tl.dot(block, higher, rest, input_precision="ieee")
    factor = tl.rsqrt(squares / WIDTH + NORM_EPS)[:, None]
    first, second, rest = first * factor, second * factor, rest * factor
    length = tl.sum(first * first, 1) + tl.sum(second * second, 1) + tl.sum(rest * rest, 1)
    turn = tl.sqrt(tl.load(head_scale + head).to(tl.float32)) * tl.rsqrt(length + HEAD_EPS)
    turn = tl.where(side < 2, turn, 1.0)[:, None]  # values are neither scaled nor rotated
    there = exists[:, None]
    angle = (rows * HEADS + head)[:, None] * PAIRS + pair[None, :]
    cosine = tl.where(side < 2, tl.load(cos + angle, mask=there, other=1.0).to(tl.float32), 1.0)
    sine = tl.where(side < 2, tl.load(sin + angle, mask=there, other=0.0).to(tl.float32), 0.0)
    low, high = first * cosine - second * sine, second * cosine + first * sine
    at = out + (tl.program_id(1) * tokens + rows)[:, None] * HEAD_DIM
    kind = out.dtype.element_ty
    tl.store(at + pair[None, :], (low * turn).to(kind), mask=there)
    tl.store(at + PAIRS + pair[None, :], (high * turn).to(kind), mask=there)
    tl.store(at + 2 * PAIRS + upper[None, :], (rest * turn).to(kind), mask=there)
