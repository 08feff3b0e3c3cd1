"""Parameters by role, against k-diffusion's rule: what it tags "wd", what "mapping", what both and what neither."""

import pytest
import torch

from lediflow.models import HourglassSpec, LevelSpec, MappingSpec, build_model, parameter_groups

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
