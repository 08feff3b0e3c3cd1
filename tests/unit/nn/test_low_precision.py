"""Linear layers in 8 and 16 bits equal the products of their rounded factors; expected values in float64."""

import pytest
import torch
from torch import nn

from lediflow.models import build_model
from lediflow.models.specs import LatentSamplerSpec
from lediflow.nn.feedforward import FeedForward, block, geglu_in_float8, programs, sizes
from lediflow.nn.low_precision import Float8Linear, rounded, to_bfloat16, to_float8
from lediflow.nn.specs import LevelSpec, MappingSpec


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_eight_bit_products_of_numbers_that_need_no_rounding_are_exact():
    weight = torch.randint(-7, 8, (32, 64), generator=torch.Generator().manual_seed(0)).float()
    weight[0, 0] = 7.0  # the scale is a power of two
    x = torch.randint(-15, 16, (2, 3, 64), generator=torch.Generator().manual_seed(1)).float()
    exact = (x.double() @ weight.double().t()).to(torch.bfloat16)
    torch.testing.assert_close(Float8Linear(weight)(x), exact, rtol=0, atol=0)


def test_eight_bit_products_are_those_of_the_rounded_factors():
    weight, x = 0.03 * drawn(48, 256), drawn(5, 256, seed=1)
    layer = Float8Linear(weight)
    factors = x.to(torch.float8_e4m3fn).double(), layer.weight.double() * layer.scale.double()
    torch.testing.assert_close(layer(x).double(), factors[0] @ factors[1].t(), rtol=2**-8, atol=1e-3)
    # three bits after the leading one: half of the last is the largest error
    assert (
        float(((factors[1] - weight) / weight.abs().clamp(min=weight.abs().max() / 2**14)).abs().max())
        <= 2**-4
    )


def test_what_eight_bits_cannot_hold_is_the_largest_number():
    assert rounded(torch.tensor([1e9, -500.0, 448.0, 3.0])).tolist() == [448.0, -448.0, 448.0, 3.0]


def test_other_weights_are_taken_as_a_new_layer_takes_them():
    layer, other = Float8Linear(drawn(16, 32)), 3 * drawn(16, 32, seed=1)
    address = layer.weight.data_ptr()
    layer.copy_(other)
    fresh = Float8Linear(other)
    assert torch.equal(layer.weight.view(torch.uint8), fresh.weight.view(torch.uint8))
    assert torch.equal(layer.scale, fresh.scale)
    assert layer.weight.data_ptr() == address


@pytest.mark.parametrize("width", [40, 96])
def test_the_gate_in_eight_bits_is_the_definition_up_to_the_largest_number(width, interpreted):
    """With gates that are closed, or so open that numbers of 8 bits are the result."""
    random = torch.Generator().manual_seed(0)
    value = torch.randint(-15, 16, (3, 5, width), generator=random) / 8
    gate = torch.randint(0, 2, (3, 5, width), generator=random) * 40.0 - 32
    value[0, 0, :2], gate[0, 0, :2] = torch.tensor([300.0, -1e30]), 8.0
    found = geglu_in_float8(torch.cat([value, gate], dim=-1).to(interpreted))
    assert found.dtype == torch.float8_e4m3fn
    assert found[0, 0, :2].float().tolist() == [448.0, -448.0]
    expected = (value * gate.clamp(min=0)).clamp(-448, 448)
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0, atol=0)


def test_the_gate_does_not_make_the_largest_number_of_nan(interpreted):
    """With a result in float32, because Triton's interpreter makes numbers of NaN when it rounds to 8 bits."""
    from lediflow.nn.kernels import fused

    both = torch.tensor([[torch.nan, 1e30, -1e30, 2.0, 8.0, 8.0, 8.0, 8.0]], device=interpreted)
    out = both.new_empty(1, 4)
    fused.geglu[programs(out)](both, out, *sizes(out), *block(out), 448.0)
    expected = torch.tensor([[torch.nan, 448.0, -448.0, 16.0]])
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-6, atol=0, equal_nan=True)


def test_large_projections_of_tokens_alone_are_in_eight_bits():
    wide, narrow = LevelSpec(depth=1, width=256, head_dim=32), LevelSpec(depth=1, width=64, head_dim=32)
    model = build_model(
        LatentSamplerSpec(latent_channels=2, levels=[narrow, wide], mapping=MappingSpec(depth=1, width=256))
    )
    names = set(to_float8(model))
    layers = ("self_attn.qkv_proj", "self_attn.out_proj", "ff.up_proj", "ff.down_proj")
    assert names == {f"hourglass.mid_level.layers.0.{layer}.weight" for layer in layers}
    gates = {part.gate is geglu_in_float8 for part in model.modules() if isinstance(part, FeedForward)}
    assert gates == {True, False}


def test_sixteen_bit_layers_round_as_autocast_does():
    layers = nn.Sequential(nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 4, bias=False))
    x = drawn(5, 24)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layers(x)
    to_bfloat16(layers)
    assert torch.equal(layers(x), expected)
    assert [name for name, _ in layers.named_parameters()] == ["0.weight", "0.bias", "2.weight"]
