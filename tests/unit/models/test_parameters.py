"""A model's parameters: their groups for the optimizer, by the reference's names, and the tree that is printed."""

import re

import pytest
import torch
from harness.commands import compose

from lediflow.config.building.models import build_trained_model
from lediflow.models import (
    HourglassSpec,
    LevelSpec,
    MappingSpec,
    build_model,
    count_parameters,
    describe_model,
    parameter_groups,
)

# one layer of a level, by the reference's tags
LAYER = {
    "tokens": [
        "self_attn.qkv_proj.weight",
        "self_attn.out_proj.weight",
        "ff.up_proj.weight",
        "ff.down_proj.weight",
    ],
    "tokens, undecayed": ["self_attn.scale"],
    "mapping": ["self_attn.norm.linear.weight", "ff.norm.linear.weight"],
}
LEVELS = ["down_levels.0", "up_levels.0", "mid_level"]
FULL_HOURGLASS = {
    "tokens": {
        "patch_in.proj.weight",
        "patch_out.proj.weight",
        "merges.0.proj.weight",
        "splits.0.proj.weight",
        *(f"{level}.layers.0.{name}" for level in LEVELS for name in LAYER["tokens"]),
    },
    "tokens, undecayed": {
        "condition.time.1.weight",
        "condition.augmentation.1.weight",
        "condition.label.weight",
        "condition.vector.weight",
        "splits.0.fac",
        "out_norm.scale",
        *(f"{level}.layers.0.{name}" for level in LEVELS for name in LAYER["tokens, undecayed"]),
    },
    "mapping": {
        "condition.mapping.blocks.0.up_proj.weight",
        "condition.mapping.blocks.0.down_proj.weight",
        *(f"{level}.layers.0.{name}" for level in LEVELS for name in LAYER["mapping"]),
    },
    "mapping, undecayed": {
        "condition.mapping.in_norm.scale",
        "condition.mapping.blocks.0.norm.scale",
        "condition.mapping.out_norm.scale",
    },
}


@pytest.fixture
def hourglass():
    """Two levels, with every input there is."""
    levels = [LevelSpec(depth=1, width=8, head_dim=8, kernel_size=3), LevelSpec(depth=1, width=8, head_dim=8)]
    return build_model(
        HourglassSpec(
            in_channels=1,
            out_channels=1,
            patch_size=1,
            levels=levels,
            mapping=MappingSpec(depth=1, width=8),
            num_classes=3,
            conditioning_dim=4,
            augmentation=True,
        )
    )


def grouped(module):
    """Group by name, with the names of its members."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        group["name"]: group | {"members": {names[parameter] for parameter in group["params"]}}
        for group in parameter_groups(module, lr=3e-4, weight_decay=0.01)
    }


def test_every_parameter_of_a_full_hourglass_is_in_the_references_group(hourglass):
    assert {name: group["members"] for name, group in grouped(hourglass).items()} == FULL_HOURGLASS


def test_mapping_learns_at_a_third_and_only_maps_decay(hourglass):
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in grouped(hourglass).items()}
    assert rates == {
        "tokens": (3e-4, 0.01),
        "tokens, undecayed": (3e-4, 0.0),
        "mapping": (pytest.approx(1e-4), 0.01),
        "mapping, undecayed": (pytest.approx(1e-4), 0.0),
    }


@pytest.mark.parametrize("conditioning", ["vector", "concat", "tokens"])
def test_every_parameter_of_a_flow_model_is_in_exactly_one_group(conditioning, velocity_spec):
    velocity_spec.conditioning, velocity_spec.num_classes = conditioning, 3
    module = build_model(velocity_spec)
    members = [name for group in grouped(module).values() for name in group["members"]]
    assert sorted(members) == sorted(name for name, _ in module.named_parameters())


def test_the_map_of_latent_tokens_is_treated_as_the_map_of_patches(velocity_spec):
    velocity_spec.conditioning = "tokens"
    assert "latent_in.weight" in grouped(build_model(velocity_spec))["tokens"]["members"]


def test_an_unconditioned_model_has_no_mapping_group(auxiliary_spec):
    assert grouped(build_model(auxiliary_spec)).keys() == {"tokens", "tokens, undecayed"}


def test_a_step_without_gradients_shrinks_what_decays_and_nothing_else(hourglass):
    before = {name: weight.clone() for name, weight in hourglass.named_parameters()}
    for parameter in hourglass.parameters():
        parameter.data.add_(1)
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(parameter_groups(hourglass, lr=0.3, weight_decay=0.5)).step()
    for name, weight in hourglass.named_parameters():
        kept = {"tokens": 1 - 0.3 * 0.5, "mapping": 1 - 0.1 * 0.5}
        (group,) = [group for group, members in FULL_HOURGLASS.items() if name in members]
        torch.testing.assert_close(weight, (before[name] + 1) * kept.get(group, 1.0))


SMOKE_FLOW = """\
VelocityModel                                                                                   39,671
└─ hourglass                                                                                    39,671
   ├─ condition       time + vector of 32 -> width 32, depth 1                                  11,360
   ├─ patch_in        merge 2x2, 4 -> 16                                                            64
   ├─ down_levels[0]  tokens of 2x2, width 16, 2 heads x 8, kernel 3, depth 1, feed-forward 48   4,354
   ├─ merges[0]       merge 2x2, 64 -> 32                                                        2,048
   ├─ mid_level       tokens of 4x4, width 32, 2 heads x 16, global, depth 1, feed-forward 96   15,362
   ├─ splits[0]       split 2x2, 32 -> 64                                                        2,049
   ├─ up_levels[0]    tokens of 2x2, width 16, 2 heads x 8, kernel 3, depth 1, feed-forward 48   4,354
   ├─ out_norm                                                                                      16
   └─ patch_out       split 2x2, 16 -> 4                                                            64"""


def smoke_model(stage):
    return build_trained_model(compose("train", "experiment=smoke", f"stage={stage}", "data.path=a"))


def leaves(tree):
    """(indent, parameters) of the lines that have none below them."""
    lines = tree.splitlines()
    depths = [re.match(r"[│ ├└─]*", line).end() for line in lines]
    numbers = [int(line.split()[-1].replace(",", "")) for line in lines]
    return [
        number
        for number, depth, following in zip(numbers, depths, [*depths[1:], 0], strict=True)
        if following <= depth
    ]


def test_the_smoke_models_flow_is_drawn_like_this():
    assert describe_model(smoke_model("flow")) == SMOKE_FLOW


def test_a_levels_parameters_are_those_of_its_formula():
    """Width w, condition c, feed-forward d: two norms of w c, attention 4 w^2 + heads, feed-forward 3 w d."""
    w, c, d, heads = 32, 32, 96, 2
    line = next(line for line in SMOKE_FLOW.splitlines() if "mid_level" in line)
    assert int(line.split()[-1].replace(",", "")) == 2 * w * c + 4 * w**2 + heads + 3 * w * d


@pytest.mark.parametrize("stage", ["auxiliary", "flow", "latent_sampler"])
def test_the_parts_add_up_to_the_model(stage):
    model = smoke_model(stage)
    assert sum(leaves(describe_model(model))) == count_parameters(model)


def test_a_decoder_is_drawn_from_coarse_to_fine(auxiliary_spec):
    auxiliary_spec.halvings = 0
    lines = describe_model(build_model(auxiliary_spec)).splitlines()
    widths = [
        re.search(r"tokens of (\dx\d), width (\d+)", line).groups() for line in lines if "width" in line
    ]
    assert widths == [("2x2", "16"), ("2x2", "32"), ("2x2", "32"), ("2x2", "16")]


def test_the_map_of_latent_tokens_is_shown(velocity_spec):
    velocity_spec.conditioning = "tokens"
    with torch.device("meta"):
        assert re.search(
            r"└─ latent_in +4 -> 32 +128$", describe_model(build_model(velocity_spec)), re.MULTILINE
        )
