"""Triton kernels of attention over all tokens of a small grid: one program for each head of an image.

All logits of a head are in registers, so the backward pass computes them again and needs queries, keys, values and
the result's gradient only. With P = softmax(q k') and the gradients dP = do v', dS = P (dP - sum of P dP),

    dv = P' do,    dq = dS k,    dk = dS' q.

Sums are in float32, products are of the tensors' dtype.
"""

import triton
import triton.language as tl


@triton.jit
def head_offsets(
    image_stride, position_stride, head_stride, heads, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Offsets of this program's head in a tensor, "tokens head_dim"."""
    image = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    position, channel = tl.arange(0, BLOCK), tl.arange(0, HEAD_DIM)
    origin = image * image_stride + head * head_stride
    return origin + position[:, None] * position_stride + channel[None, :]


@triton.jit
def load_head(
    x, image_stride, position_stride, head_stride, exists, heads, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """This program's head of a tensor with these strides, "tokens head_dim"; zeros after the last token."""
    offsets = head_offsets(image_stride, position_stride, head_stride, heads, BLOCK, HEAD_DIM)
    return tl.load(x + offsets, mask=exists[:, None], other=0.0)


@triton.jit
def result_offsets(tokens, heads, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Offsets of this program's head in a result, which has each token's heads together."""
    width = heads * HEAD_DIM
    return head_offsets(tokens * width, width, HEAD_DIM, heads, BLOCK, HEAD_DIM)


@triton.jit
def softmax_weights(q, k, exists):
    """Softmax of the logits q k' of every query over the keys that exist."""
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
    """The mean of the values of each query."""
    exists = tl.arange(0, BLOCK) < tokens
    query = load_head(q, q_image, q_position, q_head, exists, heads, BLOCK, HEAD_DIM)
    key = load_head(k, k_image, k_position, k_head, exists, heads, BLOCK, HEAD_DIM)
    value = load_head(v, v_image, v_position, v_head, exists, heads, BLOCK, HEAD_DIM)
    weights = softmax_weights(query, key, exists).to(value.dtype)
    mixed = tl.dot(weights, value, input_precision="ieee")
    target = out + result_offsets(tokens, heads, BLOCK, HEAD_DIM)
    tl.store(target, mixed.to(out.dtype.element_ty), mask=exists[:, None])


@triton.jit
def attend_gradient(
    q, k, v, grad_out, dq, dk, dv,
    q_image, q_position, q_head,
    k_image, k_position, k_head,
    v_image, v_position, v_head,
    g_image, g_position, g_head,
    tokens, heads, BLOCK: tl.constexpr, HEAD_DIM: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, keys and values."""
    exists = tl.arange(0, BLOCK) < tokens
    query = load_head(q, q_image, q_position, q_head, exists, heads, BLOCK, HEAD_DIM)
    key = load_head(k, k_image, k_position, k_head, exists, heads, BLOCK, HEAD_DIM)
    value = load_head(v, v_image, v_position, v_head, exists, heads, BLOCK, HEAD_DIM)
    gradient = load_head(grad_out, g_image, g_position, g_head, exists, heads, BLOCK, HEAD_DIM)
    target, is_token = result_offsets(tokens, heads, BLOCK, HEAD_DIM), exists[:, None]
    weights = softmax_weights(query, key, exists)
    by_value = tl.dot(tl.trans(weights.to(gradient.dtype)), gradient, input_precision="ieee")
    tl.store(dv + target, by_value.to(dv.dtype.element_ty), mask=is_token)
    by_weight = tl.dot(gradient, tl.trans(value), input_precision="ieee")
    by_logit = (weights * (by_weight - tl.sum(weights * by_weight, 1)[:, None])).to(query.dtype)
    by_query = tl.dot(by_logit, key, input_precision="ieee")
    tl.store(dq + target, by_query.to(dq.dtype.element_ty), mask=is_token)
    by_key = tl.dot(tl.trans(by_logit), query, input_precision="ieee")
    tl.store(dk + target, by_key.to(dk.dtype.element_ty), mask=is_token)
