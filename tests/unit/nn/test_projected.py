"""Attention from the projection's output in one kernel equals its definition; expected values in float64."""

import pytest
import torch

from lediflow.nn import projected
from lediflow.nn.attention import SelfAttention, global_attention, plain_heads
from lediflow.nn.rope import rotation
from lediflow.nn.specs import LevelSpec

ROUNDING = 1e-6  # float32 against float64


def drawn(*shape, device, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize(
    ("shape", "num_heads", "head_dim"),
    [
        ((1, 4, 4), 2, 16),
        ((2, 5, 3), 3, 64),
        ((1, 13, 11), 1, 128),  # more tokens than a program's keys at once
    ],
)
def test_kernel_is_the_definition(shape, num_heads, head_dim, interpreted):
    qkv = drawn(*shape, 3 * num_heads * head_dim, device=interpreted, seed=0)
    scale = drawn(num_heads, device=interpreted, seed=1).exp()
    found = projected.attend(qkv, scale, rotation(*shape[1:], num_heads, head_dim, like=qkv), head_dim)
    exact = qkv.double()
    heads = plain_heads(
        exact, scale.double(), rotation(*shape[1:], num_heads, head_dim, like=exact), head_dim
    )
    expected = global_attention(*heads)
    assert found.is_contiguous()
    assert (found.double() - expected).norm() < ROUNDING * expected.norm()


def test_attention_without_gradients_takes_it_and_equals_attention_with_gradients(interpreted):
    block = SelfAttention(LevelSpec(depth=1, width=32, head_dim=16), None).to(interpreted, torch.float16)
    qkv = drawn(2, 4, 5, 96, device=interpreted, seed=0).half()
    positions = rotation(4, 5, 2, 16, like=qkv)
    separate = block.attend(qkv, positions).float()
    with torch.no_grad():
        assert projected.serves(qkv, 16)
        joint = block.attend(qkv, positions).float()
    assert (joint - separate).norm() < 0.01 * separate.norm()  # rounding of 16-bit numbers


@pytest.mark.parametrize(
    ("shape", "dtype", "head_dim", "is_served"),
    [
        ((1, 16, 16), torch.bfloat16, 16, True),
        ((2, 16, 16), torch.bfloat16, 16, False),
        ((2, 8, 8), torch.bfloat16, 16, True),
        ((1, 4, 4), torch.float32, 16, False),
        ((1, 4, 4), torch.bfloat16, 8, False),
    ],
)
def test_many_tokens_float32_and_narrow_heads_are_left_alone(shape, dtype, head_dim, is_served, interpreted):
    with torch.no_grad():
        qkv = torch.zeros(*shape, 96, dtype=dtype, device=interpreted)
        assert projected.serves(qkv, head_dim) == is_served
