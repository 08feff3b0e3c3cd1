"""Attention over small grids by its own kernels equals its definition; expected values in float64."""

import pytest
import torch

from lediflow.nn import few_tokens
from lediflow.nn.attention import global_attention

ROUNDING = 1e-6  # float32 against float64


def heads(number, grid, device, *, by_token):
    """Heads of two images, laid out in memory by token or by head."""
    drawn = torch.randn(2, *grid, generator=torch.Generator().manual_seed(number)).to(device)
    return drawn if by_token else drawn.permute(0, 3, 1, 2, 4).contiguous().permute(0, 2, 3, 1, 4)


@pytest.mark.parametrize("grid", [(4, 4, 3, 16), (3, 5, 2, 64), (8, 8, 1, 32), (7, 6, 2, 16)])
@pytest.mark.parametrize("bits", [32, 16])
def test_results_and_gradients_are_those_of_the_definition(grid, bits, interpreted):
    # Triton's interpreter multiplies float16, not bfloat16
    half = torch.float16 if interpreted.type == "cpu" else torch.bfloat16
    dtype, rounding = (torch.float32, ROUNDING) if bits == 32 else (half, torch.finfo(half).eps / 2)
    q, k, v = (heads(n, grid, interpreted, by_token=n != 1).to(dtype).requires_grad_() for n in range(3))
    cotangent = heads(3, grid, interpreted, by_token=False).to(dtype)
    mixed = few_tokens.attend(q, k, v)
    assert mixed.is_contiguous()
    found = [mixed, *torch.autograd.grad(mixed, (q, k, v), cotangent)]
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    logits = torch.einsum("bhwnd,bijnd->bnhwij", *exact[:2])
    shares = logits.flatten(-2).softmax(-1).view_as(logits)
    mixed = torch.einsum("bnhwij,bijnd->bhwnd", shares, exact[2])
    expected = [mixed, *torch.autograd.grad(mixed, exact, cotangent.double())]
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() < rounding * other.norm()


@pytest.mark.parametrize(
    ("shape", "dtype", "is_served"),
    [
        ((1, 8, 8, 2, 32), torch.bfloat16, True),
        ((1, 8, 8, 2, 32), torch.float32, False),
        ((1, 8, 9, 2, 32), torch.bfloat16, False),
        ((1, 4, 4, 2, 8), torch.bfloat16, False),
    ],
)
def test_float32_more_tokens_and_narrow_heads_are_left_to_pytorch(shape, dtype, is_served, interpreted):
    assert few_tokens.serves(torch.zeros(shape, device=interpreted, dtype=dtype)) == is_served


def test_attention_takes_them_where_they_serve(interpreted):
    q, k, v = (heads(n, (4, 4, 2, 16), interpreted, by_token=True).bfloat16() for n in range(3))
    torch.testing.assert_close(global_attention(q, k, v), few_tokens.attend(q, k, v), rtol=0, atol=0)
