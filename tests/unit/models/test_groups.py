import pytest

from lediflow.models import build_model, parameter_groups


@pytest.fixture
def groups(velocity_spec):
    velocity_spec.num_classes = 3
    module = build_model(velocity_spec)
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        group["name"]: group | {"members": {names[p] for p in group["params"]}}
        for group in parameter_groups(module, lr=3e-4, weight_decay=0.01)
    }, set(names.values())


def test_every_parameter_is_in_exactly_one_group(groups):
    by_name, everything = groups
    members = [name for group in by_name.values() for name in group["members"]]
    assert sorted(members) == sorted(everything)


def test_norms_scales_and_input_embeddings_are_not_decayed(groups):
    spared = groups[0]["tokens, undecayed"]["members"] | groups[0]["mapping, undecayed"]["members"]
    assert "hourglass.mid_level.layers.0.self_attn.scale" in spared
    assert "hourglass.splits.0.fac" in spared
    assert "hourglass.condition.time.1.weight" in spared
    assert "hourglass.condition.label.weight" in spared
    assert "hourglass.out_norm.scale" in spared
    assert not [name for name in spared if "proj.weight" in name]


def test_the_mapping_network_and_its_readers_learn_at_a_third_of_the_rate(groups):
    mapping = groups[0]["mapping"]
    assert mapping["lr"] == pytest.approx(1e-4)
    assert mapping["weight_decay"] == 0.01
    assert "hourglass.condition.mapping.blocks.0.up_proj.weight" in mapping["members"]
    assert "hourglass.mid_level.layers.0.ff.norm.linear.weight" in mapping["members"]


def test_an_unconditioned_model_has_no_mapping_group(auxiliary_spec):
    names = {group["name"] for group in parameter_groups(build_model(auxiliary_spec), 1e-3, 0.0)}
    assert names == {"tokens", "tokens, undecayed"}
