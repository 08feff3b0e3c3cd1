import pytest
import torch
from einops import rearrange

from lediflow.nn.hourglass import Hourglass
from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec


def tiny(**changes):
    """Two levels on a 4 x 4 and a 2 x 2 token grid for 8 x 8 images; weights drawn, none left at zero."""
    levels = [
        LevelSpec(depth=1, width=16, head_dim=8, kernel_size=3),
        LevelSpec(depth=1, width=32, head_dim=16),
    ]
    mapping = MappingSpec(depth=1, width=16)
    fields = {"in_channels": 3, "out_channels": 3, "patch_size": 2, "levels": levels, "mapping": mapping}
    torch.manual_seed(0)
    return Hourglass(HourglassSpec(**(fields | changes)))


def drawn(module):
    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return module


def batch(size=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 3, 8, 8, generator=generator), torch.rand(size, generator=generator)


def test_a_fresh_network_gives_zero():
    assert tiny()(*batch()).abs().max() == 0


def test_samples_do_not_influence_each_other():
    module, (x, t) = drawn(tiny()), batch()
    torch.testing.assert_close(module(x, t)[1:2], module(x[1:2], t[1:2]))


@pytest.mark.parametrize("route", ["dense", "sdpa"])
def test_attention_routes_are_interchangeable(route):
    x, t = batch()
    chosen = Hourglass(tiny().spec, attention_route=route)
    chosen.load_state_dict(drawn(tiny()).state_dict())
    torch.testing.assert_close(chosen(x, t), drawn(tiny())(x, t), atol=1e-5, rtol=1e-5)  # summation order


@pytest.mark.parametrize(
    ("spec", "name", "values"),
    [
        ({"num_classes": 5}, "labels", (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 0]))),
        ({"conditioning_dim": 7}, "conditioning", (torch.zeros(3, 7), torch.ones(3, 7))),
        ({"augmentation": True}, "augmentation", (torch.zeros(3, 9), torch.ones(3, 9))),
    ],
)
def test_the_output_depends_on_every_input_of_the_specification(spec, name, values):
    module, (x, t) = drawn(tiny(**spec)), batch()
    first, second = (module(x, t, **{name: value}) for value in values)
    assert (first - second).abs().max() > 1e-3


def test_the_output_depends_on_time():
    module, (x, t) = drawn(tiny()), batch()
    assert (module(x, t) - module(x, t + 0.3)).abs().max() > 1e-3


@pytest.mark.parametrize("time", [0.3, torch.tensor(0.3), torch.tensor(0.3, dtype=torch.float64)], ids=repr)
def test_one_time_for_all_is_the_same_time_for_each(time):
    module, (x, _) = drawn(tiny(augmentation=True)), batch()
    torch.testing.assert_close(module(x, time), module(x, torch.full((3,), 0.3)), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2,), (1,), (3, 1)], ids=str)
def test_times_that_are_not_one_for_each_are_refused(shape):
    x, _ = batch()
    with pytest.raises(
        ValueError, match=r"t of shape .* for a batch of 3; give one time for all, or one for"
    ):
        tiny()(x, torch.zeros(shape))


@pytest.mark.parametrize(
    ("spec", "inputs", "message"),
    [
        (
            {"num_classes": 5},
            {"labels": torch.tensor([0, 5, -1])},
            r"labels: \[-1, 5\], .* 0 to 4 \(num_classes=5\)",
        ),
        (
            {"num_classes": 5},
            {"labels": torch.tensor([0])},
            r"labels: .*\(1,\) for a batch of 3; give one class",
        ),
        ({"num_classes": 5}, {"labels": torch.zeros(3)}, r"labels: torch\.float32 .* give one class number"),
        (
            {"conditioning_dim": 7},
            {"conditioning": torch.zeros(3, 6)},
            r"conditioning: .* takes 7 numbers for each",
        ),
        (
            {"conditioning_dim": 7},
            {"conditioning": torch.zeros(1, 7)},
            r"conditioning: shape \(1, 7\) for a batch of 3",
        ),
        (
            {"augmentation": True},
            {"augmentation": torch.zeros(3, 8)},
            r"augmentation: shape \(3, 8\) .*9 numbers for",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_their_name(spec, inputs, message):
    x, t = batch()
    with pytest.raises(ValueError, match=message):
        tiny(**spec)(x, t, **inputs)


def test_without_the_argument_images_count_as_not_augmented():
    module, (x, t) = drawn(tiny(augmentation=True)), batch()
    torch.testing.assert_close(module(x, t), module(x, t, augmentation=torch.zeros(3, 9)))


def test_middle_tokens_are_added_before_the_coarsest_level():
    """With nothing but the ways in and out left, the answer moves by what the added tokens become on the way out."""
    module, (x, t) = drawn(tiny()), batch()
    for level in (*module.down_levels, module.mid_level, *module.up_levels):
        for layer in level.layers:
            torch.nn.init.zeros_(layer.self_attn.out_proj.weight)
            torch.nn.init.zeros_(layer.ff.down_proj.weight)
    middle = torch.randn(3, 2, 2, 32, generator=torch.Generator().manual_seed(2))
    tokens = module.patch_in(rearrange(x, "b c h w -> b h w c"))
    split = module.splits[0](module.merges[0](tokens) + middle, tokens)
    expected = rearrange(module.patch_out(module.out_norm(split)), "b h w c -> b c h w")
    torch.testing.assert_close(module(x, t, middle=middle), expected)


def test_missing_and_unexpected_labels_are_refused():
    x, t = batch()
    with pytest.raises(ValueError, match="labels: none given, but this model needs them"):
        tiny(num_classes=5)(x, t)
    with pytest.raises(ValueError, match="labels: given, but this model was built without them"):
        tiny()(x, t, labels=torch.zeros(3, dtype=torch.long))


def test_an_image_that_the_levels_cannot_tile_is_refused():
    with pytest.raises(ValueError, match=r"image of 8x10.*multiples of 4"):
        tiny()(torch.zeros(1, 3, 8, 10), torch.zeros(1))


def test_an_image_of_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"image of 4 channels: .* built for 3 \(in_channels\)"):
        tiny()(torch.zeros(1, 4, 8, 8), torch.zeros(1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": []}, "levels: the list is empty"),
        ({"patch_size": 0}, "patch_size=0 must be at least 1"),
        ({"patch_size": 2.0}, r"patch_size=2\.0 must be a whole number, at least 1"),
        ({"num_classes": -1}, "num_classes=-1 must be at least 0"),
        ({"conditioning_dim": -1}, "conditioning_dim=-1 must be at least 0"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


def test_a_kernel_wider_than_its_grid_is_refused_by_level():
    levels = [
        LevelSpec(depth=1, width=16, head_dim=8),
        LevelSpec(depth=1, width=16, head_dim=8, kernel_size=3),
    ]
    with pytest.raises(ValueError, match=r"level 1: kernel 3 is wider than its 2x2 .*model\.levels\[1\]"):
        tiny(levels=levels)(*batch())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width 96 with head_dim 64"):
        LevelSpec(depth=1, width=96)


def test_bfloat16_autocast_stays_near_float32():
    module, (x, t) = drawn(tiny()), batch()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(x, t)
    exact = module(x, t)
    assert (rounded - exact).norm() / exact.norm() < 0.06  # eight bits of mantissa through a few layers


def test_with_equal_times_a_flow_map_is_the_velocity_to_the_bit():
    module, (x, t) = drawn(tiny()), batch()
    assert torch.equal(module(x, t, s=t), module(x, t))


def test_of_two_times_the_first_half_uses_the_first_and_the_second_half_the_second():
    """Seen by the conditions of the layers: the way down, two layers of the middle; two more, and the way up."""
    levels = [LevelSpec(depth=1, width=16, head_dim=8), LevelSpec(depth=4, width=32, head_dim=16)]
    module, (x, t) = drawn(tiny(levels=levels)), batch()
    s, seen = 1 - t, []
    for level in (*module.down_levels, module.mid_level, *module.up_levels):
        for layer in level.layers:
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    module(x, t, s=s)
    early, late = module.condition(t), module.condition(s)
    for found, expected in zip(seen, [early] * 3 + [late] * 3, strict=True):
        torch.testing.assert_close(found, expected)
    assert (module(x, t, s=s) - module(x, t)).abs().max() > 1e-3


def test_a_second_time_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"s of shape \(2,\) for a batch of 3"):
        tiny()(*batch(), s=torch.zeros(2))
