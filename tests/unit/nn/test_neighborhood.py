"""Every route of neighborhood attention against the dense oracle, and the oracle against plain loops."""

import math
from importlib import import_module

import pytest
import torch

from lediflow.nn.attention import global_attention
from lediflow.nn.neighborhood import ROUTES, neighborhood_attention
from lediflow.nn.neighborhood.window import cached_grid_mask, first_keys, grid_mask

CPU = torch.device("cpu")
SHAPES = [((5, 7), 3), ((6, 6), 4), ((8, 5), 5), ((7, 7), 7)]  # odd and even kernels, up to the whole grid
OTHER_ROUTES = sorted(set(ROUTES) - {"dense"})


def heads(grid, *, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, *grid, 3, 8, generator=generator, dtype=torch.float64)


def attention_by_loops(q, k, v, kernel_size, scale):
    """One sample and one head at a time, straight from the definition."""
    batch, height, width, num_heads, _ = q.shape
    out = torch.empty_like(v)
    for b, i, j, n in torch.cartesian_prod(*map(torch.arange, (batch, height, width, num_heads))).tolist():
        top = min(max(i - kernel_size // 2, 0), height - kernel_size)
        left = min(max(j - kernel_size // 2, 0), width - kernel_size)
        window = (b, slice(top, top + kernel_size), slice(left, left + kernel_size), n)
        keys, values = k[window].flatten(0, 1), v[window].flatten(0, 1)
        out[b, i, j, n] = (scale * keys @ q[b, i, j, n]).softmax(dim=0) @ values
    return out


@pytest.mark.parametrize(("grid", "kernel_size"), SHAPES)
def test_dense_route_is_the_definition(grid, kernel_size):
    q, k, v = heads(grid)
    expected = attention_by_loops(q, k, v, kernel_size, scale=0.7)
    found = neighborhood_attention(q, k, v, kernel_size, scale=0.7, route="dense")
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("grid", "kernel_size"), SHAPES)
def test_dense_route_is_nattens(grid, kernel_size):
    natten = import_module("natten")
    q, k, v = torch.randn(3, 2, *grid, 3, 16, generator=torch.Generator().manual_seed(0))
    expected = natten.na2d(q, k, v, kernel_size=kernel_size, scale=0.7)
    found = neighborhood_attention(q, k, v, kernel_size, scale=0.7, route="dense")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)  # float32: all its CPU route has


@pytest.mark.parametrize("route", OTHER_ROUTES)
@pytest.mark.parametrize(("grid", "kernel_size"), SHAPES)
def test_every_route_matches_the_dense_one_forward_and_backward(route, grid, kernel_size):
    inputs = heads(grid)
    cotangent = heads(grid, count=1, seed=1)[0]
    results = {}
    for name in ("dense", route):
        q, k, v = (x.clone().requires_grad_() for x in inputs)
        out = neighborhood_attention(q, k, v, kernel_size, route=name)
        results[name] = (out, *torch.autograd.grad(out, (q, k, v), cotangent))
    torch.testing.assert_close(results[route], results["dense"])


@pytest.mark.parametrize("route", ROUTES)
def test_a_kernel_as_wide_as_the_grid_is_global_attention(route):
    q, k, v = heads((5, 5))
    found = neighborhood_attention(q, k, v, 5, scale=1.0, route=route)
    torch.testing.assert_close(found, global_attention(q, k, v))


def test_scale_defaults_to_one_over_the_root_of_the_head_dim():
    q, k, v = heads((4, 4))
    found = neighborhood_attention(q, k, v, 3)
    torch.testing.assert_close(found, neighborhood_attention(q, k, v, 3, scale=1 / math.sqrt(8)))


def test_windows_slide_no_further_than_the_border():
    assert first_keys(7, 3, CPU).tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert first_keys(6, 4, CPU).tolist() == [0, 0, 0, 1, 2, 2]  # an even kernel leans towards the start


@pytest.mark.parametrize(("grid", "kernel_size"), SHAPES)
def test_every_query_sees_kernel_squared_keys(grid, kernel_size):
    assert (grid_mask(*grid, kernel_size, CPU).sum(dim=1) == kernel_size**2).all()


def test_a_mask_made_while_sampling_serves_a_backward_pass():
    q, k, v = heads((9, 6))
    with torch.inference_mode():
        neighborhood_attention(q, k, v, 3, route="sdpa")
    q.requires_grad_()
    neighborhood_attention(q, k, v, 3, route="sdpa").sum().backward()
    assert cached_grid_mask(9, 6, 3, CPU) is cached_grid_mask(9, 6, 3, CPU)


def test_a_kernel_wider_than_the_grid_is_refused():
    q, k, v = heads((4, 6))
    with pytest.raises(ValueError, match="kernel 5 is wider than its 4x6 token grid; lower"):
        neighborhood_attention(q, k, v, 5)


def test_an_unknown_route_is_refused_with_the_nearest_name():
    q, k, v = heads((4, 4))
    with pytest.raises(ValueError, match=r"'spda'.*dense.*sdpa.*did you mean 'sdpa'"):
        neighborhood_attention(q, k, v, 3, route="spda")
