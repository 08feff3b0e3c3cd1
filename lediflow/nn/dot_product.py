"""Attention by PyTorch's fused kernels: softmax(scale q k^T) v over all keys, or over those that a mask allows.

On CPUs inputs in bfloat16 are computed in float32. PyTorch's CPU kernel for bfloat16 is slower, its backward pass about
three times (docs/performance_experiments.md).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lediflow.nn.shapes import Heads

Sequences = Float[Tensor, "batch heads tokens head_dim"]
Mask = Bool[Tensor, "queries keys"]


def grid_attention(q: Heads, k: Heads, v: Heads, *, scale: float, mask: Mask | None = None) -> Heads:
    """`dot_product_attention` of the tokens of a grid, row by row."""
    sequences = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
    mixed = dot_product_attention(*sequences, scale=scale, mask=mask)
    return mixed.transpose(1, 2).unflatten(1, q.shape[1:3])


def dot_product_attention(
    q: Sequences, k: Sequences, v: Sequences, *, scale: float, mask: Mask | None = None
) -> Sequences:
    """softmax(scale q k^T) v, in the dtype of v; a query attends to the keys where its row of `mask` is true."""
    if q.device.type != "cpu" or v.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    with torch.autocast("cpu", enabled=False):
        wide = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, scale=scale)
        return wide.to(v.dtype)
