"""The kernels for a single image equal the modules' own code; expected values in float64."""

import pytest
import torch

from lediflow.nn import one_image
from lediflow.nn.attention import plain_heads
from lediflow.nn.feedforward import plain_geglu
from lediflow.nn.norms import rms_norm
from lediflow.nn.rope import rotation

GRIDS = [(4, 4, 128), (5, 7, 192), (8, 8, 64)]  # height, width, channels


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(found, expected):
    return float((found.cpu().double() - expected).norm() / expected.norm())


@pytest.fixture
def dtype_and_error(interpreted):
    """On a GPU products are those of bfloat16; the interpreter has them in float32."""
    return (torch.bfloat16, 1e-2) if interpreted.type == "cuda" else (torch.float32, 1e-6)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norm_and_gate_in_one(grid, offset, interpreted, dtype_and_error):
    dtype, most = dtype_and_error
    x, scale = drawn(1, *grid, seed=0).to(dtype), 0.3 * drawn(grid[2], seed=1)
    weight = (drawn(2 * 128, grid[2], seed=2) * grid[2] ** -0.5).to(dtype)
    found = one_image.norm_gate(x.to(interpreted), scale.to(interpreted), offset, weight.to(interpreted))
    normed = rms_norm(x.double(), scale.double() + offset)
    assert error(found, plain_geglu(normed @ weight.double().T)) < most


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norm_and_heads_in_one(grid, offset, interpreted, dtype_and_error):
    dtype, most = dtype_and_error
    height, width, channels = grid
    x, scale = drawn(1, *grid, seed=0).to(dtype), 0.3 * drawn(channels, seed=1)
    weight = (drawn(3 * channels, channels, seed=2) * channels**-0.5).to(dtype)
    head_scale = 1 + 10 * drawn(channels // 64, seed=3).abs()
    positions = rotation(height, width, channels // 64, 64, like=x.to(interpreted))
    given = (one.to(interpreted) for one in (x, scale))
    found = one_image.norm_heads(
        *given, offset, weight.to(interpreted), head_scale.to(interpreted), positions
    )
    normed = rms_norm(x.double(), scale.double() + offset)
    exact = rotation(height, width, channels // 64, 64, like=normed)
    expected = plain_heads(normed @ weight.double().T, head_scale.double(), exact, 64)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert error(one, other) < most


def test_eager_networks_and_networks_that_learn_do_not_use_them(interpreted):
    x, layer = torch.ones(1, 2, 2, 64, dtype=torch.bfloat16), torch.nn.Linear(64, 64, dtype=torch.bfloat16)
    assert not one_image.serves(x.to(interpreted), layer.to(interpreted))
