"""Every route of neighborhood attention against the dense oracle, and the oracle against plain loops."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch
from torch._dynamo import mark_dynamic
from torch._dynamo.testing import CompileCounterWithBackend

from lediflow.nn.attention import global_attention
from lediflow.nn.neighborhood import ROUTES, natten, neighborhood_attention, triton
from lediflow.nn.neighborhood.plain import cached_grid_mask, first_keys, grid_mask

CPU = torch.device("cpu")
SHAPES = [((5, 7), 3), ((6, 6), 4), ((8, 5), 5), ((7, 7), 7)]  # odd and even kernels, up to the whole grid
# several tiles of every kernel; Triton's interpreter takes seconds for each sample and head
LARGER_SHAPES = [((17, 9), 7), ((16, 24), 9)]
ROUNDING = 5e-6  # float32 through logits of some tens, against float64
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


@pytest.mark.parametrize(("grid", "kernel_size"), SHAPES)
def test_dense_route_is_nattens(grid, kernel_size):
    natten = import_module("natten")
    q, k, v = torch.randn(3, 2, *grid, 3, 16, generator=torch.Generator().manual_seed(0))
    expected = natten.na2d(q, k, v, kernel_size=kernel_size, scale=0.7)
    found = neighborhood_attention(q, k, v, kernel_size, scale=0.7, route="dense")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)  # float32: all its CPU route has


def heads_in_float32(grid, head_dim, count, batch=2, num_heads=3):
    generator = torch.Generator().manual_seed(head_dim)
    return torch.randn(count, batch, *grid, num_heads, head_dim, generator=generator)


def relative_error(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("head_dim", [16, 64])
@pytest.mark.parametrize(("grid", "kernel_size"), SHAPES)
@pytest.mark.parametrize("route", OTHER_ROUTES)
def test_every_route_is_the_oracle_forward_and_backward(route, grid, kernel_size, head_dim, interpreted):
    assert_is_the_oracle(route, kernel_size, heads_in_float32(grid, head_dim, count=4), interpreted)


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [16, 64])
@pytest.mark.parametrize(("grid", "kernel_size"), LARGER_SHAPES)
@pytest.mark.parametrize("route", OTHER_ROUTES)
def test_every_route_is_the_oracle_over_several_tiles(route, grid, kernel_size, head_dim, interpreted):
    drawn = heads_in_float32(grid, head_dim, count=4, batch=1, num_heads=2)
    assert_is_the_oracle(route, kernel_size, drawn, interpreted)


def assert_is_the_oracle(route, kernel_size, drawn, device):
    """Forward and, where the route can, backward."""
    q, k, v, cotangent = drawn.to(device)
    can_differentiate = device.type == "cuda" or route in ("sdpa", "triton")
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    inputs = [x.clone().requires_grad_(can_differentiate) for x in (q, k, v)]
    expected = neighborhood_attention(*exact, kernel_size, scale=0.7, route="dense")
    found = neighborhood_attention(*inputs, kernel_size, scale=0.7, route=route)
    assert relative_error(found, expected) < ROUNDING
    if can_differentiate:
        gradients = torch.autograd.grad(found, inputs, cotangent)
        for ours, theirs in zip(
            gradients, torch.autograd.grad(expected, exact, cotangent.double()), strict=True
        ):
            assert relative_error(ours, theirs) < ROUNDING


def test_triton_takes_grids_of_a_few_columns(interpreted):
    drawn = heads_in_float32((5, 4), 16, count=4, batch=1, num_heads=1)
    assert_is_the_oracle("triton", 3, drawn, interpreted)
    for width in range(3, 9):  # on a GPU, though not in the interpreter, a product sums over 16 keys or more
        for head_dim in triton.HEAD_DIMS:
            made = triton.constants(
                torch.empty(1, 4, width, 1, head_dim), 3, 1.0, triton.FORWARD, reach=triton.key_reach
            )
            assert made["STEP_ROWS"] * made["COLUMNS"] >= 16


@pytest.mark.parametrize("route", ["dense", "sdpa"])
def test_routes_of_any_dtype_pass_gradcheck(route):
    q, k, v = (x[:1, :, :, :1].clone().requires_grad_() for x in heads((4, 5)))
    assert torch.autograd.gradcheck(lambda *qkv: neighborhood_attention(*qkv, 3, route=route), (q, k, v))


def test_triton_reads_projections_without_a_copy(interpreted):
    packed = torch.randn(2, 9, 6, 3, 2, 16, generator=torch.Generator().manual_seed(0)).to(interpreted)
    views = packed.unbind(3)
    by_head = [x.permute(0, 3, 1, 2, 4).contiguous().permute(0, 2, 3, 1, 4) for x in views]
    expected = neighborhood_attention(*(x.double() for x in views), 5, route="dense")
    for q, k, v in (views, by_head):
        found = neighborhood_attention(q, k, v, 5, route="triton")
        assert relative_error(found, expected) < ROUNDING


@pytest.mark.parametrize("route", sorted(set(ROUTES) - {"natten", "flex", "triton"}))
def test_a_kernel_as_wide_as_the_grid_is_global_attention(route):
    q, k, v = heads((5, 5))
    found = neighborhood_attention(q, k, v, 5, scale=1.0, route=route)
    torch.testing.assert_close(found, global_attention(q, k, v))


@pytest.mark.parametrize("kernel_size", [3, None])
def test_attention_of_bfloat16_on_a_cpu_is_the_float32_one_rounded(kernel_size):
    def attend(q, k, v):
        if kernel_size is None:
            return global_attention(q, k, v)
        return neighborhood_attention(q, k, v, kernel_size, scale=1.0, route="sdpa")

    narrow = [x.to(torch.bfloat16).requires_grad_() for x in heads((5, 7))]
    wide = [x.detach().float().requires_grad_() for x in narrow]
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*narrow)
    expected = attend(*wide)
    assert torch.equal(found, expected.bfloat16())
    found.float().sum().backward(), expected.sum().backward()
    for x, exact in zip(narrow, wide, strict=True):
        assert torch.equal(x.grad, exact.grad.bfloat16())


@pytest.mark.parametrize(
    ("route", "dtype", "kernel_size", "is_training", "reason"),
    [
        ("triton", torch.float32, 3, False, "run on GPUs, not on cpu"),
        ("natten", torch.float32, 3, True, "no backward pass on CPUs"),
        ("natten", torch.float64, 3, False, "no backend for this dtype"),
        ("natten", torch.float32, 1, False, "kernels of 2 or more"),
        ("flex", torch.float32, 3, True, "no backward pass on CPUs"),
        ("flex", torch.float64, 3, False, "float32, float16 and bfloat16 only"),
    ],
)
def test_a_route_that_is_not_supported_is_refused_with_the_reason(
    route, dtype, kernel_size, is_training, reason
):
    q, k, v = (x.to(dtype).requires_grad_(is_training) for x in heads_in_float32((6, 6), 16, count=3))
    with pytest.raises(
        ValueError, match=rf"attention route '{route}', 6x6 tokens.*{reason}.*use route \"auto\""
    ):
        neighborhood_attention(q, k, v, kernel_size, route=route)


def test_without_natten_its_route_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(natten, "find_spec", lambda name: None)
    q, k, v = heads_in_float32((6, 6), 16, count=3)
    with pytest.raises(ValueError, match=r"natten is not installed.*natten\.org"):
        neighborhood_attention(q, k, v, 3, route="natten")


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


def test_a_mask_that_was_created_in_inference_mode_works_in_a_backward_pass():
    q, k, v = heads((9, 6))
    with torch.inference_mode():
        neighborhood_attention(q, k, v, 3, route="sdpa")
    q.requires_grad_()
    neighborhood_attention(q, k, v, 3, route="sdpa").sum().backward()
    assert cached_grid_mask(9, 6, 3, CPU) is cached_grid_mask(9, 6, 3, CPU)


@pytest.mark.slow
def test_one_graph_holds_the_masks_of_several_grids_and_kernels():
    torch.compiler.reset()

    def attend(first, second):
        calls = ((first, 3), (second, 3), (second, 5))
        return [neighborhood_attention(x, x, x, kernel_size, route="sdpa") for x, kernel_size in calls]

    graphs = CompileCounterWithBackend("inductor")
    compiled = torch.compile(attend, fullgraph=True, backend=graphs)
    for count in (2, 3):
        grids = [torch.randn(count, *grid, 2, 8).requires_grad_() for grid in ((8, 8), (6, 7))]
        for x in grids:
            mark_dynamic(x, 0)  # an error if the graph holds for this batch size alone
        found, expected = compiled(*grids), attend(*grids)
        torch.testing.assert_close(found, expected)
        cotangents = [torch.ones_like(x) for x in found]
        torch.testing.assert_close(
            *(torch.autograd.grad(outputs, grids, cotangents) for outputs in (found, expected))
        )
    assert graphs.frame_count == 1
    with torch.no_grad():
        torch.testing.assert_close(compiled(*grids), expected)


def test_a_kernel_wider_than_the_grid_is_refused():
    q, k, v = heads((4, 6))
    with pytest.raises(ValueError, match="kernel 5 is wider than its 4x6 token grid; lower"):
        neighborhood_attention(q, k, v, 5)


@pytest.mark.parametrize("kernel_size", [3.0, (3, 3), None])
def test_a_kernel_that_is_not_a_whole_number_is_refused(kernel_size):
    with pytest.raises(ValueError, match=r"kernel_size=.*; give one whole number"):
        neighborhood_attention(*heads((6, 6)), kernel_size)


def test_a_kernel_may_be_an_integer_of_numpy():
    q, k, v = heads((6, 6))
    assert torch.equal(neighborhood_attention(q, k, v, np.int64(3)), neighborhood_attention(q, k, v, 3))


@pytest.mark.slow
@pytest.mark.parametrize("route", ["natten", "flex"])
def test_routes_that_cannot_be_compiled_for_cpus_say_so(route):
    torch.compiler.reset()
    q, k, v = heads_in_float32((6, 6), 16, count=3)
    compiled = torch.compile(lambda *qkv: neighborhood_attention(*qkv, 3, route=route), fullgraph=True)
    with pytest.raises(Exception, match=rf"attention route .*{route}.*CPUs.*use route .*sdpa"):
        compiled(q, k, v)


def test_an_unknown_route_is_refused_with_the_nearest_name():
    q, k, v = heads((4, 4))
    with pytest.raises(ValueError, match=r"'spda': known are auto, dense, sdpa.*did you mean 'sdpa'"):
        neighborhood_attention(q, k, v, 3, route="spda")
    with pytest.raises(ValueError, match="attention route None: known are auto"):
        neighborhood_attention(q, k, v, 3, route=None)


def test_tensors_of_different_shapes_are_refused():
    q, k, v = heads((4, 4))
    with pytest.raises(ValueError, match=r"must share one shape.*\(2, 4, 4, 3, 8\), \(2, 4, 4, 3, 4\)"):
        neighborhood_attention(q, k[..., :4], v, 3)
    with pytest.raises(ValueError, match="share dtype and device; found float64 on cpu, float64 on cpu, bf"):
        neighborhood_attention(q, k, v.bfloat16(), 3, route="flex")
