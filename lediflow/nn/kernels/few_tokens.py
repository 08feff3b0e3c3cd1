"""Triton kernels of attention over all tokens of a small grid: one program for each head of an image.

All logits of a head are in registers, so the backward pass computes them again and needs queries, keys, values and
the result's gradient only. With P = softmax(q k') and the gradients dP = do v', dS = P (dP - sum of P dP),

    dv = P' do,    dq = dS k,    dk = dS' q.

Sums are in float32, products are of the tensors' dtype.
"""

import triton
import triton.language as tl


@triton.jit
def places(image_stride, position_stride, head_stride, heads, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Offsets of the tokens of this program's head."""
    image = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    position, channel = tl.arange(0, BLOCK), tl.arange(0, HEAD_DIM)
    origin = image * image_stride + head * head_stride
    return origin + position[:, None] * position_stride + channel[None, :]


@triton.jit
def shares(q, k, exists):
    """Softmax of the logits of every query over the keys that exist."""
    logits = tl.dot(q, tl.trans(k), input_precision="ieee")
    logits = tl.where(exists[None, :], logits, float("-inf"))
    weights = tl.exp(logits - tl.max(logits, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def attend(
    q, k, v, out,
    q_image, q_position, q_head,
    k_image, k_position, k_head,
    v_image, v_position, v_head,
    tokens, heads, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """The mean of the values of each query; the result has each token's heads together."""
    exists = tl.arange(0, BLOCK) < tokens
    there = exists[:, None]
    query = tl.load(q + places(q_image, q_position, q_head, heads, BLOCK, HEAD_DIM), mask=there, other=0.0)
    key = tl.load(k + places(k_image, k_position, k_head, heads, BLOCK, HEAD_DIM), mask=there, other=0.0)
    value = tl.load(v + places(v_image, v_position, v_head, heads, BLOCK, HEAD_DIM), mask=there, other=0.0)
    mixed = tl.dot(shares(query, key, exists).to(value.dtype), value, input_precision="ieee")
    width = heads * HEAD_DIM
    target = out + places(tokens * width, width, HEAD_DIM, heads, BLOCK, HEAD_DIM)
    tl.store(target, mixed.to(out.dtype.element_ty), mask=there)


@triton.jit
def attend_gradient(
    q, k, v, grad_out, dq, dk, dv,
    q_image, q_position, q_head,
    k_image, k_position, k_head,
    v_image, v_position, v_head,
    g_image, g_position, g_head,
    tokens, heads, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, keys and values, with each token's heads together."""
    exists = tl.arange(0, BLOCK) < tokens
    there = exists[:, None]
    query = tl.load(q + places(q_image, q_position, q_head, heads, BLOCK, HEAD_DIM), mask=there, other=0.0)
    key = tl.load(k + places(k_image, k_position, k_head, heads, BLOCK, HEAD_DIM), mask=there, other=0.0)
    value = tl.load(v + places(v_image, v_position, v_head, heads, BLOCK, HEAD_DIM), mask=there, other=0.0)
    gradient = tl.load(
        grad_out + places(g_image, g_position, g_head, heads, BLOCK, HEAD_DIM), mask=there, other=0.0
    )
    width = heads * HEAD_DIM
    target = places(tokens * width, width, HEAD_DIM, heads, BLOCK, HEAD_DIM)
    share = shares(query, key, exists)
    of_value = tl.dot(tl.trans(share.to(gradient.dtype)), gradient, input_precision="ieee")
    tl.store(dv + target, of_value.to(dv.dtype.element_ty), mask=there)
    by_share = tl.dot(gradient, tl.trans(value), input_precision="ieee")
    slope = (share * (by_share - tl.sum(share * by_share, 1)[:, None])).to(query.dtype)
    of_query = tl.dot(slope, key, input_precision="ieee")
    tl.store(dq + target, of_query.to(dq.dtype.element_ty), mask=there)
    of_key = tl.dot(tl.trans(slope), query, input_precision="ieee")
    tl.store(dk + target, of_key.to(dk.dtype.element_ty), mask=there)
