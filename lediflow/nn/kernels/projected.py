"""Triton kernel of attention that reads the projection's output: it splits, scales and rotates heads; forward only.

Each program prepares its queries and all keys of its head as `fused.split_and_rotate` does, and rounds them as that
kernel stores them. The softmax is computed online, in float32.
"""

import triton
import triton.language as tl

from lediflow.nn.kernels.fused import channels, waves
from lediflow.nn.kernels.neighborhood import LOG2_E, add_keys, image_and_head


@triton.jit
def turned(
    qkv, root, cos, sin, first, position, exists, side, head, heads, EPS: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Queries (side 0) or keys (side 1) at positions of one image, scaled to length `root` and rotated."""
    channel, partner, pair, sign, is_rotated = channels(HEAD_DIM)
    cosine, sine = waves(cos, sin, position, head, heads, pair, sign, is_rotated, exists, HEAD_DIM // 4)
    source = qkv + (((first + position) * 3 + side) * heads + head)[:, None] * HEAD_DIM
    there = exists[:, None]
    x = tl.load(source + channel[None, :], mask=there, other=0.0).to(tl.float32)
    across = tl.load(source + partner[None, :], mask=there, other=0.0).to(tl.float32)
    factor = root * tl.rsqrt(tl.sum(x * x, 1) + EPS)
    return ((x * cosine + across * sine) * factor[:, None]).to(qkv.dtype.element_ty)


@triton.jit
def attend_projected(
    qkv, scale, cos, sin, out, positions, heads,
    EPS: tl.constexpr, HEAD_DIM: tl.constexpr, PRECISION: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Every token attends to every token of its image; a program has QUERIES of them, and KEYS at once."""
    image, head = image_and_head(heads)
    first = image * positions
    root, channel = tl.sqrt(tl.load(scale + head).to(tl.float32)), tl.arange(0, HEAD_DIM)
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    is_query = query < positions
    queries = turned(qkv, root, cos, sin, first, query, is_query, 0, head, heads, EPS, HEAD_DIM)
    largest = tl.full([QUERIES], -1e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, HEAD_DIM], tl.float32)
    for start in range(0, positions, KEYS):
        key = start + tl.arange(0, KEYS)
        is_key = key < positions
        keys = turned(qkv, root, cos, sin, first, key, is_key, 1, head, heads, EPS, HEAD_DIM)
        source = qkv + (((first + key) * 3 + 2) * heads + head)[:, None] * HEAD_DIM + channel[None, :]
        values = tl.load(source, mask=is_key[:, None], other=0.0)
        logits = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * LOG2_E
        logits = tl.where(is_key[None, :], logits, float("-inf"))
        largest, total, mixed = add_keys(logits, values, largest, total, mixed, PRECISION)
    target = out + ((first + query) * heads + head)[:, None] * HEAD_DIM + channel[None, :]
    tl.store(target, (mixed / total[:, None]).to(out.dtype.element_ty), mask=is_query[:, None])
