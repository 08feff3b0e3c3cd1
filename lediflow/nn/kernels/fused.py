"""Triton kernels that do several elementwise operations in one pass: the feed-forward gate, and attention's heads.

Arithmetic is in float32 for tensors of any dtype. Programs are numbered along a token first, so that those that run at
the same time read and write neighbouring memory.

`geglu` is value * gelu(gate); its gradient kernel computes the gradients of both halves in one pass. torch.compile's
code for the gradient evaluates the gate twice, once for each half, because both halves are in one tensor.

`split_and_rotate` is the step between projection and attention: split into heads, scale queries and keys, rotate
them. With a query or key x, the length factor f = sqrt(s / (|x|^2 + eps)) and the rotation R of its position,

    y = f R x,    dx = f R' (dy - y (y . dy) / s),    ds = sum of y . dy / (2 s),

so the backward pass needs only y and f, and the projection's output is not stored.
A rotation pairs channel c of the first quarter of a head with its partner in the second quarter; the upper half is
unchanged. It is computed as y_c = x_c cos + x_partner sin, where sin carries the sign.
"""

import triton
import triton.language as tl

ROOT_HALF = tl.constexpr(0.7071067811865476)
DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)


@triton.jit
def entries(rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets of this program's block in the output and of its values in the input, and a mask of valid entries."""
    across = tl.cdiv(WIDTH, COLUMNS)
    row = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return row * WIDTH + column, row * (2 * WIDTH) + column, (row < rows) & (column < WIDTH)


@triton.jit
def geglu(
    both, out, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LARGEST: tl.constexpr
):
    of_out, of_value, exists = entries(rows, WIDTH, ROWS, COLUMNS)
    value = tl.load(both + of_value, mask=exists, other=0.0).to(tl.float32)
    gate = tl.load(both + of_value + WIDTH, mask=exists, other=0.0).to(tl.float32)
    share = 0.5 + 0.5 * tl.erf(gate * ROOT_HALF)  # gelu(x) = x * P(normal < x)
    gated = value * gate * share
    if LARGEST > 0:
        gated = tl.where(gated > LARGEST, LARGEST, tl.where(gated < -LARGEST, -LARGEST, gated))  # keeps NaN
    tl.store(out + of_out, gated.to(out.dtype.element_ty), mask=exists)


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


@triton.jit
def channels(HEAD_DIM: tl.constexpr):
    """For every channel: index, partner, index of the pair, sign of the sine, and whether it is rotated."""
    channel = tl.arange(0, HEAD_DIM)
    PAIRS: tl.constexpr = HEAD_DIM // 4
    is_first, is_rotated = channel < PAIRS, channel < 2 * PAIRS
    partner = tl.where(is_first, channel + PAIRS, tl.where(is_rotated, channel - PAIRS, channel))
    return channel, partner, channel % PAIRS, tl.where(is_first, -1.0, 1.0), is_rotated


@triton.jit
def waves(cos, sin, position, head, heads, pair, sign, is_rotated, exists, PAIRS: tl.constexpr):
    """Cosine and signed sine for every token and channel; 1 and 0 for channels that are not rotated."""
    offset = (position * heads + head)[:, None] * PAIRS + pair[None, :]
    there = exists[:, None] & is_rotated[None, :]
    cosine = tl.load(cos + offset, mask=there, other=1.0).to(tl.float32)
    sine = tl.load(sin + offset, mask=there, other=0.0).to(tl.float32)
    return cosine, sine * sign[None, :]


@triton.jit
def split_and_rotate(
    qkv, scale, cos, sin, q, k, v, factors,
    out_image, out_position, out_head, tokens, positions, heads,
    EPS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """q, k, v and the factors f of one head for a block of tokens."""
    head = tl.program_id(0) % heads
    token = (tl.program_id(0) // heads).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = token < tokens
    position = token % positions
    channel, partner, pair, sign, is_rotated = channels(HEAD_DIM)
    cosine, sine = waves(cos, sin, position, head, heads, pair, sign, is_rotated, exists, HEAD_DIM // 4)
    out = (
        (token // positions * out_image + position * out_position)[:, None]
        + head * out_head
        + channel[None, :]
    )
    root = tl.sqrt(tl.load(scale + head).to(tl.float32))
    there = exists[:, None]
    for side in tl.static_range(2):
        source = qkv + ((token * 3 + side) * heads + head)[:, None] * HEAD_DIM
        x = tl.load(source + channel[None, :], mask=there, other=0.0).to(tl.float32)
        turned = tl.load(source + partner[None, :], mask=there, other=0.0).to(tl.float32)
        factor = root * tl.rsqrt(tl.sum(x * x, 1) + EPS)
        y = (x * cosine + turned * sine) * factor[:, None]
        if side == 0:
            tl.store(q + out, y.to(q.dtype.element_ty), mask=there)
        else:
            tl.store(k + out, y.to(k.dtype.element_ty), mask=there)
        tl.store(factors + (token * 2 + side) * heads + head, factor, mask=exists)
    source = qkv + ((token * 3 + 2) * heads + head)[:, None] * HEAD_DIM
    tl.store(v + out, tl.load(source + channel[None, :], mask=there, other=0.0), mask=there)


@triton.jit
def load_at(x, token, positions, image, place, by_head, head, channel, there):
    """Head vectors as float32, loaded with the strides of their tensor."""
    at = (token // positions * image + token % positions * place)[:, None] + head * by_head + channel[None, :]
    return tl.load(x + at, mask=there, other=0.0).to(tl.float32)


@triton.jit
def split_and_rotate_gradient(
    q, k, dq, dk, dv, scale, cos, sin, factors, dqkv, products,
    y_image, y_position, y_head,
    q_image, q_position, q_head,
    k_image, k_position, k_head,
    v_image, v_position, v_head,
    tokens, positions, heads,
    HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of the projection's output, and y . dy for the gradient of the scale."""
    head = tl.program_id(0) % heads
    token = (tl.program_id(0) // heads).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = token < tokens
    channel, partner, pair, sign, is_rotated = channels(HEAD_DIM)
    cosine, sine = waves(
        cos, sin, token % positions, head, heads, pair, sign, is_rotated, exists, HEAD_DIM // 4
    )
    there = exists[:, None]
    s = tl.load(scale + head).to(tl.float32)
    for side in tl.static_range(2):
        if side == 0:
            y = load_at(q, token, positions, y_image, y_position, y_head, head, channel, there)
            turned_y = load_at(q, token, positions, y_image, y_position, y_head, head, partner, there)
            dy = load_at(dq, token, positions, q_image, q_position, q_head, head, channel, there)
            turned_dy = load_at(dq, token, positions, q_image, q_position, q_head, head, partner, there)
        else:
            y = load_at(k, token, positions, y_image, y_position, y_head, head, channel, there)
            turned_y = load_at(k, token, positions, y_image, y_position, y_head, head, partner, there)
            dy = load_at(dk, token, positions, k_image, k_position, k_head, head, channel, there)
            turned_dy = load_at(dk, token, positions, k_image, k_position, k_head, head, partner, there)
        product = tl.sum(y * dy, 1)
        factor = tl.load(factors + (token * 2 + side) * heads + head, mask=exists, other=0.0)
        along = (product / s)[:, None]
        across, turned = dy - y * along, turned_dy - turned_y * along
        dx = (across * cosine - turned * sine) * factor[:, None]
        target = dqkv + ((token * 3 + side) * heads + head)[:, None] * HEAD_DIM + channel[None, :]
        tl.store(target, dx.to(dqkv.dtype.element_ty), mask=there)
        tl.store(products + (token * 2 + side) * heads + head, product, mask=exists)
    value = load_at(dv, token, positions, v_image, v_position, v_head, head, channel, there)
    target = dqkv + ((token * 3 + 2) * heads + head)[:, None] * HEAD_DIM + channel[None, :]
    tl.store(target, value.to(dqkv.dtype.element_ty), mask=there)
