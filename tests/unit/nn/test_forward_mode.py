"""Derivatives of networks along a direction: by forward-mode differentiation, compiled or not, and by differences."""

import pytest
import torch

from lediflow.models import LevelSpec, MappingSpec, VelocitySpec, build_model
from lediflow.nn.feedforward import geglu, plain_geglu
from lediflow.nn.forward_mode import central_difference, derivative, forward_mode, is_forward_mode
from lediflow.nn.neighborhood import neighborhood_attention

# routes and a dtype that they take on a CPU, the step of the difference, and its error (falls with the step's square,
# down to rounding): features of time turn fast
ROUTES = [
    ("dense", torch.float64, 1e-6, 1e-7),
    ("sdpa", torch.float64, 1e-6, 1e-7),
    ("auto", torch.float64, 1e-6, 1e-7),
    ("natten", torch.float32, 1e-4, 2e-3),
    ("flex", torch.float32, 1e-4, 2e-3),
]


def drawn(dtype, *shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def flow_map(route, dtype):
    """A flow map with a neighborhood and a global level, no weight of it zero."""
    levels = [
        LevelSpec(depth=1, width=32, head_dim=16, kernel_size=3),
        LevelSpec(depth=2, width=32, head_dim=16),
    ]
    spec = VelocitySpec(
        image_channels=1,
        patch_size=2,
        levels=levels,
        mapping=MappingSpec(depth=1, width=16),
        is_flow_map=True,
    )
    torch.manual_seed(0)
    model = build_model(spec, route)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype)


def along_a_path(model, dtype):
    """The mean velocity to s as a function of x and t, where it is looked at, and a direction."""
    x, v = drawn(dtype, *[(2, 1, 16, 16)] * 2)
    t, s = torch.tensor([0.2, 0.4], dtype=dtype), torch.tensor([0.9, 0.5], dtype=dtype)
    return (lambda x, t: model(x, t, s=s)), (x, t), (v, torch.ones_like(t))


@pytest.mark.parametrize(("route", "dtype", "step", "tolerance"), ROUTES)
def test_the_derivative_of_a_flow_map_is_its_finite_difference(route, dtype, step, tolerance):
    """The difference is that of the model as it is outside, by its own route of attention."""
    mean, inputs, directions = along_a_path(flow_map(route, dtype), dtype)
    found = derivative(mean, inputs, directions)
    expected = central_difference(mean, inputs, directions, step)
    assert expected.norm() > 1
    assert (found - expected).norm() < tolerance * expected.norm()
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("route", "dtype", "step", "tolerance"), [case for case in ROUTES if case[0] != "auto"]
)
def test_each_route_of_attention_is_differentiated_forward(route, dtype, step, tolerance):
    q, k, v, dq, dk, dv = drawn(dtype, *[(1, 8, 8, 2, 16)] * 6)

    def attention(q, k, v):
        return neighborhood_attention(q, k, v, 3, route=route)

    step = step if dtype is torch.float64 else 1e-2  # no time here, so that larger steps are exact enough
    found = derivative(attention, (q, k, v), (dq, dk, dv))
    expected = central_difference(attention, (q, k, v), (dq, dk, dv), step)
    assert (found - expected).norm() < tolerance * expected.norm()


@pytest.mark.processes
@pytest.mark.parametrize("route", ["dense", "sdpa"])
def test_the_compiled_derivative_is_the_eager_one(route):
    """In float64; without forward_mode that of sdpa would be lost in the compiler's code, without an error."""
    q, k, v, *directions = drawn(torch.float64, *[(1, 8, 8, 2, 16)] * 6)

    def attention(q, k, v):
        return neighborhood_attention(q, k, v, 3, route=route)

    @torch.no_grad()
    def change(inputs, directions):
        return torch.func.jvp(attention, inputs, directions)[1]

    with forward_mode():
        found = torch.compile(change)((q, k, v), tuple(directions))
    expected = derivative(attention, (q, k, v), tuple(directions))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_triton_kernels_are_replaced_by_their_definitions(interpreted):
    both, direction = (x.to(interpreted) for x in drawn(torch.float32, (3, 32), (3, 32)))
    torch.testing.assert_close(
        derivative(geglu, (both,), (direction,)), torch.func.jvp(plain_geglu, (both,), (direction,))[1]
    )


def test_forward_mode_ends_with_its_context_also_after_an_error():
    with pytest.raises(ZeroDivisionError), forward_mode():
        assert is_forward_mode()
        raise ZeroDivisionError
    assert not is_forward_mode()
