"""Which products are rounded to 8 bits, and by how much that changes them."""

import pytest
import torch
from torch import nn

from lediflow.engine import float8, precision
from lediflow.engine.protocol import EngineConfig
from lediflow.errors import UserError
from lediflow.models import build_model
from lediflow.models.specs import VelocitySpec
from lediflow.nn.low_precision import LAYERS
from lediflow.nn.specs import LevelSpec

WIDTH = 256


@pytest.fixture
def models():
    """A model, and the same model with large layers that are rounded."""
    spec = VelocitySpec(image_channels=3, patch_size=2, levels=[LevelSpec(depth=1, width=WIDTH, head_dim=64)])
    pair = [build_model(spec, "dense") for _ in range(2)]
    return pair[0], float8.use_float8(pair[1], is_emulated=True)


def test_large_projections_of_tokens_are_rounded_and_nothing_else(models):
    _, rounded = models
    kinds = {
        name: type(part).__name__ for name, part in rounded.named_modules() if isinstance(part, nn.Linear)
    }
    of_tokens = {name for name in kinds if name.endswith(LAYERS) and "mapping" not in name}
    assert of_tokens == {name for name, kind in kinds.items() if kind == "Float8Linear"}
    assert {name.rpartition(".")[2] for name in of_tokens} == {*LAYERS}


def test_the_parameters_keep_their_names(models):
    plain, rounded = models
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in rounded.named_parameters()]


def test_a_product_is_off_by_the_rounding_of_its_factors():
    """Factors have 3 bits behind the leading one, off by 2.6 % in the root mean square; gradients of outputs have 2."""
    torch.manual_seed(2)
    layer = nn.ModuleDict({"up_proj": nn.Linear(WIDTH, WIDTH, bias=False)})
    x, cotangent = torch.randn(512, WIDTH), torch.randn(512, WIDTH)
    exact = products(layer, x, cotangent)
    float8.use_float8(layer, is_emulated=True)
    errors = [
        ((rounded - one).norm() / one.norm()).item()
        for one, rounded in zip(exact, products(layer, x, cotangent), strict=True)
    ]
    # independent errors of two factors add up in squares
    assert errors == pytest.approx([0.026 * 2**0.5, 0.026 * 5**0.5, 0.026 * 5**0.5], rel=0.1)


def products(layer, x, cotangent):
    """The three products of a layer: its output, and the gradients of its input and of its weight."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer["up_proj"](x)
    y.backward(cotangent)
    return y.detach(), x.grad, layer["up_proj"].weight.grad


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "float32"}, "engine.precision is float32; use engine.precision=bfloat16"),
        ({"precision": "bfloat16"}, "not a device of type cpu; use engine.float8=false"),
    ],
)
def test_it_is_refused_where_it_cannot_work(options, words):
    with pytest.raises(UserError, match=words):
        precision.resolved(EngineConfig(float8=True, **options), torch.device("cpu"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchao", None)
    with pytest.raises(UserError, match=r"needs the package torchao; `pip install 'lediflow\[float8\]'`"):
        float8.import_float8()
