"""Triton kernels of neighborhood attention, forward and backward, over tokens in row-major order.

A program processes a tile of tokens, tile_height x tile_width of one head. The keys of a tile of queries, and the
queries of a tile of keys, are both in a rectangle slightly larger than the tile. It is processed `step_rows` rows
at a time, with its columns padded to a power of two, and a mask restricts each query to its window. No window is
copied and no mask is stored; an 8 x 8 tile reads 14 x 16 keys where full attention reads the whole grid. The
softmax is computed online; the backward pass recomputes the weights from the saved log-sum-exp. There are no atomic
additions, so results are deterministic bit for bit.
Sources: FlashAttention-2, arXiv:2307.08691; the rectangle is NATTEN's halo, arXiv:2403.04690.

Symbols: q, k, v and o as usual; g is the gradient of the loss with respect to o; `lse` is log2 of the softmax's
denominator, and `delta` the sum of o * g over a head's channels, both "batch height width heads". Logits are in units
of log 2.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def first_key(query, length, KERNEL: tl.constexpr):
    """The first key of a query's window along one axis (see lediflow.nn.neighborhood.plain)."""
    return tl.minimum(tl.maximum(query - KERNEL // 2, 0), length - KERNEL)


@triton.jit
def first_query(key, KERNEL: tl.constexpr):
    """The first query whose window contains a key, along one axis."""
    return tl.where(key < KERNEL, 0, key - KERNEL + KERNEL // 2 + 1)


@triton.jit
def last_query(key, length, KERNEL: tl.constexpr):
    """The last query whose window contains a key, along one axis."""
    return tl.where(key >= length - KERNEL, length - 1, tl.minimum(key + KERNEL // 2, length - 1))


@triton.jit
def sees(query_row, query_column, key_row, key_column, height, width, KERNEL: tl.constexpr):
    """Whether keys are in queries' windows; the caller masks positions outside of the grid."""
    top, left = first_key(query_row, height, KERNEL), first_key(query_column, width, KERNEL)
    in_rows = (key_row >= top) & (key_row < top + KERNEL)
    return in_rows & (key_column >= left) & (key_column < left + KERNEL)


@triton.jit
def tile_of_program(height, width, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr):
    """Row and column of the first token of this program's tile; of each token; whether that is on the grid."""
    tiles_across = tl.cdiv(width, TILE_WIDTH)
    tile = tl.program_id(0)
    top, left = (tile // tiles_across) * TILE_HEIGHT, (tile % tiles_across) * TILE_WIDTH
    inside = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    row, column = top + inside // TILE_WIDTH, left + inside % TILE_WIDTH
    return top, left, row, column, (row < height) & (column < width)


@triton.jit
def image_and_head(heads):
    """Image and head of this program; the image is int64 because offsets can exceed 2^31."""
    both = tl.program_id(1)
    return (both // heads).to(tl.int64), both % heads


@triton.jit
def load_heads(x, row, column, stride_row, stride_column, is_on_grid, HEAD_DIM: tl.constexpr):
    """The head vectors at grid positions, "positions head_dim"; zeros outside of the grid."""
    offset = row * stride_row + column * stride_column
    channel = tl.arange(0, HEAD_DIM)
    return tl.load(x + offset[:, None] + channel[None, :], mask=is_on_grid[:, None], other=0.0)


@triton.jit
def store_heads(x, value, row, column, stride_row, stride_column, is_on_grid, HEAD_DIM: tl.constexpr):
    """The inverse of `load_heads`."""
    offset = row * stride_row + column * stride_column
    channel = tl.arange(0, HEAD_DIM)
    tl.store(x + offset[:, None] + channel[None, :], value.to(x.dtype.element_ty), mask=is_on_grid[:, None])


@triton.jit
def add_keys(logits, values, largest, total, mixed, PRECISION: tl.constexpr):
    """One step of the online softmax: more keys, with logits in units of log 2, and -inf where a query sees none.

    For each query: the largest logit so far, and relative to it the sum of the weights and of the weighted values.
    """
    larger = tl.maximum(largest, tl.max(logits, 1))
    weights = tl.exp2(logits - larger[:, None])
    shrink = tl.exp2(largest - larger)
    total = total * shrink + tl.sum(weights, 1)
    mixed = mixed * shrink[:, None]
    mixed = tl.dot(weights.to(values.dtype), values, mixed, input_precision=PRECISION)
    return larger, total, mixed


@triton.jit
def attention(
    q, k, v, o, lse,
    q_image, q_row, q_column, q_head,
    k_image, k_row, k_column, k_head,
    v_image, v_row, v_column, v_head,
    o_image, o_row, o_column, o_head,
    heads, height, width,
    SCALE: tl.constexpr, KERNEL: tl.constexpr, HEAD_DIM: tl.constexpr, PRECISION: tl.constexpr,
    TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr, STEP_ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """o = softmax(scale q k^T) v over each query's window, for one tile of queries."""
    image, head = image_and_head(heads)
    q += image * q_image + head * q_head
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    o += image * o_image + head * o_head
    top, left, i, j, is_query = tile_of_program(height, width, TILE_HEIGHT, TILE_WIDTH)
    queries = load_heads(q, i, j, q_row, q_column, is_query, HEAD_DIM)

    step = tl.arange(0, STEP_ROWS * COLUMNS)
    key_column = first_key(left, width, KERNEL) + step % COLUMNS
    largest = tl.full([TILE_HEIGHT * TILE_WIDTH], -1e30, tl.float32)
    total = tl.zeros([TILE_HEIGHT * TILE_WIDTH], tl.float32)
    mixed = tl.zeros([TILE_HEIGHT * TILE_WIDTH, HEAD_DIM], tl.float32)
    last = first_key(tl.minimum(top + TILE_HEIGHT, height) - 1, height, KERNEL) + KERNEL
    for row in range(first_key(top, height, KERNEL), last, STEP_ROWS):
        key_row = row + step // COLUMNS
        is_key = (key_row < height) & (key_column < width)
        keys = load_heads(k, key_row, key_column, k_row, k_column, is_key, HEAD_DIM)
        values = load_heads(v, key_row, key_column, v_row, v_column, is_key, HEAD_DIM)
        logits = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (SCALE * LOG2_E)
        visible = sees(i[:, None], j[:, None], key_row[None, :], key_column[None, :], height, width, KERNEL)
        logits = tl.where(visible, logits, float("-inf"))
        largest, total, mixed = add_keys(logits, values, largest, total, mixed, PRECISION)
    store_heads(o, mixed / total[:, None], i, j, o_row, o_column, is_query, HEAD_DIM)
    position = ((image * height + i) * width + j) * heads + head
    tl.store(lse + position, largest + tl.log2(total), mask=is_query)


@triton.jit
def query_gradient(
    q, k, v, o, g, lse, delta, dq,
    q_image, q_row, q_column, q_head,
    k_image, k_row, k_column, k_head,
    v_image, v_row, v_column, v_head,
    o_image, o_row, o_column, o_head,
    g_image, g_row, g_column, g_head,
    d_image, d_row, d_column, d_head,
    heads, height, width,
    SCALE: tl.constexpr, KERNEL: tl.constexpr, HEAD_DIM: tl.constexpr, PRECISION: tl.constexpr,
    TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr, STEP_ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of one tile of queries, and `delta` for key_value_gradient."""
    image, head = image_and_head(heads)
    q += image * q_image + head * q_head
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    o += image * o_image + head * o_head
    g += image * g_image + head * g_head
    dq += image * d_image + head * d_head
    top, left, i, j, is_query = tile_of_program(height, width, TILE_HEIGHT, TILE_WIDTH)
    queries = load_heads(q, i, j, q_row, q_column, is_query, HEAD_DIM)
    outputs = load_heads(o, i, j, o_row, o_column, is_query, HEAD_DIM)
    gradients = load_heads(g, i, j, g_row, g_column, is_query, HEAD_DIM)
    position = ((image * height + i) * width + j) * heads + head
    log_total = tl.load(lse + position, mask=is_query, other=0.0)
    own_delta = tl.sum(outputs.to(tl.float32) * gradients.to(tl.float32), 1)
    tl.store(delta + position, own_delta, mask=is_query)

    step = tl.arange(0, STEP_ROWS * COLUMNS)
    key_column = first_key(left, width, KERNEL) + step % COLUMNS
    gradient = tl.zeros([TILE_HEIGHT * TILE_WIDTH, HEAD_DIM], tl.float32)
    last = first_key(tl.minimum(top + TILE_HEIGHT, height) - 1, height, KERNEL) + KERNEL
    for row in range(first_key(top, height, KERNEL), last, STEP_ROWS):
        key_row = row + step // COLUMNS
        is_key = (key_row < height) & (key_column < width)
        keys = load_heads(k, key_row, key_column, k_row, k_column, is_key, HEAD_DIM)
        values = load_heads(v, key_row, key_column, v_row, v_column, is_key, HEAD_DIM)
        logits = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * (SCALE * LOG2_E)
        visible = sees(i[:, None], j[:, None], key_row[None, :], key_column[None, :], height, width, KERNEL)
        weights = tl.where(visible, tl.exp2(logits - log_total[:, None]), 0.0)
        by_weight = tl.dot(gradients, tl.trans(values), input_precision=PRECISION)
        by_logit = weights * (by_weight - own_delta[:, None])
        gradient = tl.dot(by_logit.to(keys.dtype), keys, gradient, input_precision=PRECISION)
    store_heads(dq, gradient * SCALE, i, j, d_row, d_column, is_query, HEAD_DIM)


@triton.jit
def key_value_gradient(
    q, k, v, g, lse, delta, dk, dv,
    q_image, q_row, q_column, q_head,
    k_image, k_row, k_column, k_head,
    v_image, v_row, v_column, v_head,
    g_image, g_row, g_column, g_head,
    d_image, d_row, d_column, d_head,
    heads, height, width,
    SCALE: tl.constexpr, KERNEL: tl.constexpr, HEAD_DIM: tl.constexpr, PRECISION: tl.constexpr,
    TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr, STEP_ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of one tile of keys and values."""
    image, head = image_and_head(heads)
    q += image * q_image + head * q_head
    k += image * k_image + head * k_head
    v += image * v_image + head * v_head
    g += image * g_image + head * g_head
    dk += image * d_image + head * d_head
    dv += image * d_image + head * d_head
    top, left, i, j, is_key = tile_of_program(height, width, TILE_HEIGHT, TILE_WIDTH)
    keys = load_heads(k, i, j, k_row, k_column, is_key, HEAD_DIM)
    values = load_heads(v, i, j, v_row, v_column, is_key, HEAD_DIM)

    step = tl.arange(0, STEP_ROWS * COLUMNS)
    query_column = first_query(left, KERNEL) + step % COLUMNS
    key_gradient = tl.zeros([TILE_HEIGHT * TILE_WIDTH, HEAD_DIM], tl.float32)
    value_gradient = tl.zeros([TILE_HEIGHT * TILE_WIDTH, HEAD_DIM], tl.float32)
    last = last_query(tl.minimum(top + TILE_HEIGHT, height) - 1, height, KERNEL) + 1
    for row in range(first_query(top, KERNEL), last, STEP_ROWS):
        query_row = row + step // COLUMNS
        is_query = (query_row < height) & (query_column < width)
        queries = load_heads(q, query_row, query_column, q_row, q_column, is_query, HEAD_DIM)
        gradients = load_heads(g, query_row, query_column, g_row, g_column, is_query, HEAD_DIM)
        position = ((image * height + query_row) * width + query_column) * heads + head
        log_total = tl.load(lse + position, mask=is_query, other=0.0)
        own_delta = tl.load(delta + position, mask=is_query, other=0.0)
        logits = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * (SCALE * LOG2_E)
        visible = sees(
            query_row[None, :], query_column[None, :], i[:, None], j[:, None], height, width, KERNEL
        ) & is_query[None, :]  # fmt: skip
        weights = tl.where(visible, tl.exp2(logits - log_total[None, :]), 0.0)
        value_gradient = tl.dot(
            weights.to(gradients.dtype), gradients, value_gradient, input_precision=PRECISION
        )
        by_weight = tl.dot(values, tl.trans(gradients), input_precision=PRECISION)
        by_logit = weights * (by_weight - own_delta[None, :])
        key_gradient = tl.dot(by_logit.to(queries.dtype), queries, key_gradient, input_precision=PRECISION)
    store_heads(dk, key_gradient * SCALE, i, j, d_row, d_column, is_key, HEAD_DIM)
    store_heads(dv, value_gradient, i, j, d_row, d_column, is_key, HEAD_DIM)
