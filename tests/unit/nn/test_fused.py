"""The Triton kernels for heads and the gate equal their definitions; expected values in float64."""

import logging
import sys
from functools import partial

import pytest
import torch

from lediflow.nn import kernels
from lediflow.nn.attention import plain_heads, to_heads
from lediflow.nn.feedforward import geglu, plain_geglu
from lediflow.nn.rope import rotation

ROUNDING = 1e-6  # float32 against float64


def values_and_gradients(function, inputs, cotangents):
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [*outputs, *torch.autograd.grad(outputs, inputs, cotangents)]


def largest_error(found, expected):
    return max(((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True))


def drawn(*shape, device, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize(
    ("grid", "num_heads", "head_dim", "by_token"),
    [((8, 6), 3, 16, False), ((9, 7), 2, 64, True), ((5, 4), 4, 8, False)],
)
def test_heads_kernel_is_the_definition_forward_and_backward(
    grid, num_heads, head_dim, by_token, interpreted
):
    height, width = grid
    qkv = drawn(2, height, width, 3 * num_heads * head_dim, device=interpreted, seed=0)
    scale = drawn(num_heads, device=interpreted, seed=1).exp()
    cotangents = list(drawn(3, 2, height, width, num_heads, head_dim, device=interpreted, seed=2))
    results = []
    kernel = partial(to_heads, by_token=by_token)
    for function, dtype in ((plain_heads, torch.float64), (kernel, torch.float32)):
        inputs = [x.to(dtype).requires_grad_() for x in (qkv, scale)]
        positions = rotation(height, width, num_heads, head_dim, like=inputs[0])
        results.append(
            values_and_gradients(
                lambda x, s, by=function, at=positions: by(x, s, at, head_dim),
                inputs,
                [g.to(dtype) for g in cotangents],
            )
        )
    assert largest_error(results[1], results[0]) < ROUNDING


@pytest.mark.parametrize("by_token", [False, True])
def test_heads_are_laid_out_by_token_or_by_head(by_token, interpreted):
    qkv = drawn(2, 4, 3, 3 * 2 * 16, device=interpreted, seed=0)
    heads = to_heads(qkv, torch.ones(2, device=interpreted), rotation(4, 3, 2, 16, like=qkv), 16, by_token)
    places = [x if by_token else x.permute(0, 3, 1, 2, 4) for x in heads]
    assert all(x.is_contiguous() for x in places)


@pytest.mark.parametrize("width", [40, 96])
def test_gate_kernel_is_the_definition_forward_and_backward(width, interpreted):
    both = drawn(3, 5, 2 * width, device=interpreted, seed=0)
    cotangent = drawn(3, 5, width, device=interpreted, seed=1)
    exact = values_and_gradients(plain_geglu, [both.double().requires_grad_()], [cotangent.double()])
    found = values_and_gradients(geglu, [both.requires_grad_()], [cotangent])
    assert largest_error(found, exact) < ROUNDING


def test_float64_takes_the_definition(interpreted):
    both = drawn(2, 8, device=interpreted, seed=0).double()
    torch.testing.assert_close(geglu(both), plain_geglu(both), rtol=0, atol=0)


def test_operators_are_declared_without_a_warning_without_triton(monkeypatch):
    """As on a CPU with PyTorch's CPU build; PyTorch itself warns of each operator that it registers."""
    monkeypatch.setattr(kernels, "_unregistered", [])
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("torch._library.triton")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "filters", [])  # without that of lediflow/quiet.py
    monkeypatch.setattr(kernels, "HAS_TRITON", False)
    monkeypatch.setitem(sys.modules, "triton.runtime.autotuner", None)

    def probe(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    kernels.operator("probe")(probe)
    assert heard == []
    torch.library.triton_op("lediflow::probe_by_torch", probe, mutates_args={})
    assert len(heard) == 1
