"""Weights to and from k-diffusion's names, for any hourglass; the reference's own numbers are in tests/golden."""

import json
import random
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lediflow.flow.solvers import solve
from lediflow.models.convert import from_k_diffusion, to_k_diffusion
from lediflow.nn.hourglass import Hourglass
from lediflow.nn.specs import HourglassSpec, LevelSpec, MappingSpec

CONFIGURATION = {  # as k-diffusion's files in configs/ are written, but smaller
    "model": {
        "type": "image_transformer_v2",
        "input_channels": 3,
        "input_size": [32, 32],
        "patch_size": [4, 4],
        "depths": [1, 2],
        "widths": [16, 32],
        "d_ffs": [24, 40],
        "self_attns": [
            {"type": "neighborhood", "d_head": 8, "kernel_size": 3},
            {"type": "global", "d_head": 16},
        ],
        "mapping_depth": 1,
        "mapping_width": 16,
        "mapping_d_ff": 20,
        "mapping_cond_dim": 5,
        "dropout_rate": [0.0, 0.1],
        "mapping_dropout_rate": 0.2,
        "sigma_data": 0.5,
    },
    "dataset": {"type": "imagefolder", "num_classes": 7},
}
CONFIGURED = HourglassSpec(
    in_channels=3,
    out_channels=3,
    patch_size=4,
    levels=[
        LevelSpec(depth=1, width=16, d_ff=24, head_dim=8, kernel_size=3),
        LevelSpec(depth=2, width=32, d_ff=40, head_dim=16, dropout=0.1),
    ],
    mapping=MappingSpec(depth=1, width=16, d_ff=20, dropout=0.2),
    num_classes=8,  # one of them for "no class"
    conditioning_dim=5,
    augmentation=True,
)


def random_spec(seed):
    """Any hourglass: 1 to 4 levels, heads of 8 to 64 channels, odd feed-forward widths, any inputs."""
    draw = random.Random(seed)
    levels = []
    for _ in range(draw.randint(1, 4)):
        head_dim = draw.choice([8, 16, 24, 64])
        levels.append(
            LevelSpec(
                depth=draw.randint(1, 2),
                width=head_dim * draw.randint(1, 3),
                d_ff=draw.choice([0, 7, 33]),
                head_dim=head_dim,
                kernel_size=draw.choice([None, 1, 2]),
            )
        )
    return HourglassSpec(
        in_channels=draw.randint(1, 5),
        out_channels=draw.randint(1, 5),
        patch_size=draw.choice([1, 2, 3]),
        levels=levels,
        mapping=MappingSpec(
            depth=draw.randint(1, 2), width=draw.choice([8, 10, 16]), d_ff=draw.choice([0, 9])
        ),
        num_classes=draw.choice([0, 3]),
        conditioning_dim=draw.choice([0, 1, 6]),
        augmentation=draw.choice([False, True]),
    )


def drawn(spec, seed=0):
    torch.manual_seed(seed)
    module = Hourglass(spec, attention_route="sdpa")
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for name, parameter in module.named_parameters():
        if name.endswith("self_attn.scale"):
            parameter.data.abs_()  # its root is taken
    return module.eval()


def inputs_for(spec):
    generator = torch.Generator().manual_seed(1)
    side = spec.patch_size * 2 ** len(spec.levels)  # the coarsest grid is 2 x 2, enough for the kernels
    given = {
        "labels": torch.tensor([0, 2]) if spec.num_classes else None,
        "conditioning": torch.randn(2, spec.conditioning_dim, generator=generator)
        if spec.conditioning_dim
        else None,
        "augmentation": torch.randn(2, 9, generator=generator) if spec.augmentation else None,
    }
    x = torch.randn(2, spec.in_channels, side, side, generator=generator)
    return (x, torch.tensor([0.2, 0.8])), given


@pytest.mark.parametrize("seed", range(12))
def test_any_converted_hourglass_computes_the_same(seed):
    spec = random_spec(seed)
    module = drawn(spec)
    returned = from_k_diffusion(*to_k_diffusion(module))
    assert type(returned) is Hourglass
    arguments, given = inputs_for(spec)
    assert torch.equal(returned(*arguments, **given), module(*arguments, **given))


@pytest.mark.parametrize("seed", range(12))
def test_missing_metadata_is_inferred_from_the_weights(seed):
    module = drawn(random_spec(seed))
    weights, metadata = to_k_diffusion(module)
    described = {key: metadata[key] for key in ("levels", "mapping", "patch_size")}
    assert from_k_diffusion(weights, described).spec == from_k_diffusion(weights, metadata).spec
    described = {key: metadata[key] for key in ("levels", "mapping")} | {
        "in_channels": module.spec.in_channels
    }
    assert from_k_diffusion(weights, described).spec == from_k_diffusion(weights, metadata).spec


def test_weights_and_metadata_go_through_a_safetensors_file(tmp_path):
    module = drawn(CONFIGURED)
    weights, metadata = to_k_diffusion(module)
    save_file(weights, tmp_path / "checkpoint.safetensors", metadata)
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        returned = from_k_diffusion(read, file.metadata())
    for name, weight in module.state_dict().items():
        assert torch.equal(returned.state_dict()[name], weight), name


def test_the_specification_is_read_back_with_every_number():
    assert from_k_diffusion(*to_k_diffusion(drawn(CONFIGURED))).spec == CONFIGURED


@pytest.mark.parametrize(
    "metadata",
    [CONFIGURATION, {"config": CONFIGURATION}, {"config": json.dumps(CONFIGURATION), "format": "pt"}],
    ids=["configuration", "under config", "as safetensors metadata"],
)
def test_k_diffusions_own_configuration_is_read(metadata):
    module = drawn(CONFIGURED)
    weights, _ = to_k_diffusion(module)
    returned = from_k_diffusion(weights, metadata)
    assert returned.spec == CONFIGURED
    arguments, given = inputs_for(CONFIGURED)
    assert torch.equal(returned(*arguments, **given), module(*arguments, **given))


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.3, [0.3, 0.3]), ([0.3, 0], [0.3, 0.0]), (None, [0.0, 0.0])]
)
def test_dropout_is_one_rate_for_all_levels_or_one_each(rate, expected):
    weights, _ = to_k_diffusion(drawn(CONFIGURED))
    metadata = CONFIGURATION | {"model": CONFIGURATION["model"] | {"dropout_rate": rate}}
    module = from_k_diffusion(weights, metadata)
    assert [level.dropout for level in module.spec.levels] == expected
    assert (
        module.mid_level.layers[0].self_attn.dropout == module.mid_level.layers[0].ff.dropout == expected[1]
    )
    assert not module.training  # as load_model gives: dropout acts where a caller trains on


def test_k_diffusions_defaults_fill_a_short_configuration():
    """Heads of 64, kernels of 7 but for a global middle, feed-forward widths of three times the width."""
    short = {"input_channels": 3, "patch_size": [4, 4], "depths": [1, 1], "widths": [64, 128]}
    spec = HourglassSpec(
        in_channels=3,
        out_channels=3,
        patch_size=4,
        levels=[
            LevelSpec(depth=1, width=64, d_ff=192, head_dim=64, kernel_size=7),
            LevelSpec(depth=1, width=128, d_ff=384, head_dim=64),
        ],
        mapping=MappingSpec(depth=2, width=256, d_ff=768),
    )
    weights, _ = to_k_diffusion(Hourglass(spec))
    assert from_k_diffusion(weights, {"model": {"type": "image_transformer_v2", **short}}).spec == spec


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_of_half_precision_stay_what_they_are(dtype):
    weights, metadata = to_k_diffusion(drawn(CONFIGURED))
    halves = {name: weight.to(dtype) for name, weight in weights.items()}
    module = from_k_diffusion(halves, metadata)
    assert {weight.dtype for weight in module.state_dict().values()} == {dtype}
    same = from_k_diffusion({name: weight.float() for name, weight in halves.items()}, metadata)
    arguments, given = inputs_for(CONFIGURED)
    expected = same(*arguments, **given)
    (x, t), rounded = arguments, {k: v.to(dtype) if v.is_floating_point() else v for k, v in given.items()}
    error = (module(x.to(dtype), t, **rounded).float() - expected).norm() / expected.norm()
    assert error < 0.05  # 8 bits of mantissa through a few layers


def test_the_module_owns_its_weights():
    weights, metadata = to_k_diffusion(drawn(CONFIGURED))
    module = from_k_diffusion(weights, metadata)
    before = weights["patch_in.proj.weight"].clone()
    with torch.no_grad():
        module.patch_in.proj.weight.zero_()
    assert torch.equal(weights["patch_in.proj.weight"], before)
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": "3"}, r"class_emb\.weight \(8, 16\) instead of \(3, 16\)"),
        ({"num_classes": "0"}, r"unexpected: class_emb\.weight"),
        ({"conditioning_dim": "6"}, r"mapping_cond_in_proj\.weight \(16, 5\) instead of \(16, 6\)"),
        ({"channels": "4"}, r"patch_in\.proj\.weight \(16, 48\) instead of \(16, 64\)"),
        ({"mapping": '{"depth": 2, "width": 16, "d_ff": 20}'}, r"missing: mapping\.blocks\.1\."),
        ({"patch_size": "[4, 2]"}, "only square patches"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_metadata_that_contradict_the_weights_are_refused(change, message):
    weights, metadata = to_k_diffusion(drawn(CONFIGURED))
    with pytest.raises(ValueError, match=message):
        from_k_diffusion(weights, metadata | change)


def test_missing_unexpected_and_reshaped_weights_are_all_named():
    weights, metadata = to_k_diffusion(drawn(CONFIGURED))
    del weights["mid_level.1.ff.up_proj.weight"], weights["out_norm.scale"]
    weights["cross_attn.weight"] = torch.zeros(1)
    weights["merges.0.proj.weight"] = torch.zeros(32, 16)
    with pytest.raises(ValueError) as said:
        from_k_diffusion(weights, metadata)
    assert "missing: mid_level.1.ff.up_proj.weight, out_norm.scale;" in str(said.value)
    assert "unexpected: cross_attn.weight;" in str(said.value)
    assert "of another shape: merges.0.proj.weight (32, 16) instead of (32, 64)" in str(said.value)


def test_weights_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r"missing: patch_in\.proj\.weight, among 1 weights \(conv\.weight"):
        from_k_diffusion({"conv.weight": torch.zeros(1)}, CONFIGURATION)


@pytest.mark.parametrize("kind", ["shifted-window", "none"])
def test_attention_that_this_hourglass_lacks_is_refused(kind):
    weights, _ = to_k_diffusion(drawn(CONFIGURED))
    attention = [{"type": kind, "d_head": 8, "window_size": 4}, {"type": "global", "d_head": 16}]
    metadata = {"model": CONFIGURATION["model"] | {"self_attns": attention}}
    with pytest.raises(ValueError, match=rf"self_attns\[0\] of type '{kind}': .*global and neighborhood"):
        from_k_diffusion(weights, metadata)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model": {"type": "image_v1"}}, "type 'image_v1': only 'image_transformer_v2'"),
        (
            {"channels": "3"},
            r"metadata with \['channels'\]: levels and mapping network are missing",
        ),
        (
            {"levels": '[{"depth": 1, "width": 16, "heads": 2}]', "mapping": "{}", "patch_size": "4"},
            "LevelSpec with heads: it has depth, width",
        ),
        ({"levels": "[]", "mapping": "{}"}, "without patch_size and channels"),
        (
            {"model": CONFIGURATION["model"] | {"depths": [1]}},
            "2 widths, 1 depths, 2 d_ffs and 2 self_attns",
        ),
        (
            {"model": CONFIGURATION["model"] | {"dropout_rate": [0.1]}},
            "dropout_rate of 1 numbers for 2 widths: give one per level",
        ),
        ({"model": {"type": "image_transformer_v2", "patch_size": 4}}, "no input_channels, depths, widths"),
        (None, r"metadata with \[\]: levels and mapping network are missing; give k-diffusion's"),
        (
            {"levels": "[", "mapping": "{}"},
            "metadata, levels is incomplete, or not JSON .*; give k-diffusion's",
        ),
        ({"levels": "3", "mapping": "{}", "patch_size": "4"}, "metadata, levels: found 3; give a list"),
        ({"config": "[]"}, r"metadata, config: found \[\]; give k-diffusion's configuration"),
    ],
    ids=[
        "type",
        "no levels",
        "unknown field",
        "no patch size",
        "uneven lists",
        "uneven dropout",
        "half a configuration",
        "none",
        "broken text",
        "no list",
        "no configuration",
    ],
)
def test_metadata_that_do_not_describe_an_hourglass_are_refused(metadata, message):
    weights, _ = to_k_diffusion(drawn(CONFIGURED))
    with pytest.raises(ValueError, match=message):
        from_k_diffusion(weights, metadata)


@pytest.mark.parametrize("solver", ["heun3", "dopri5"])
def test_a_converted_hourglass_is_a_velocity_that_solvers_take(solver):
    spec = replace(CONFIGURED, num_classes=0, conditioning_dim=0)
    module = from_k_diffusion(*to_k_diffusion(drawn(spec)))
    (x, _), _ = inputs_for(spec)
    with torch.no_grad():
        found = solve(module, x, solver=solver, steps=2)
        expected = solve(lambda x, t: module(x, t.expand(len(x))), x, solver=solver, steps=2)
    torch.testing.assert_close(found.x, expected.x)


def test_frequencies_of_another_layout_are_refused():
    """Earlier versions of the reference shared one list of frequencies among the heads."""
    weights, metadata = to_k_diffusion(drawn(CONFIGURED))
    weights["mid_level.0.self_attn.pos_emb.freqs"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"mid_level\.0.*of shape \(2,\) instead of .*\(2, 2\)"):
        from_k_diffusion(weights, metadata)
