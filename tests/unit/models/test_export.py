import json
import subprocess
import sys

import pytest
import torch

from lediflow.models import HourglassSpec, build_model, load_model, read_config, save_model

SPECS = ["auxiliary_spec", "velocity_spec", "latent_sampler_spec", "hourglass_spec"]


@pytest.fixture
def hourglass_spec(velocity_spec):
    return HourglassSpec(
        in_channels=3,
        out_channels=6,
        patch_size=2,
        levels=velocity_spec.levels,
        mapping=velocity_spec.mapping,
        augmentation=True,
    )


@pytest.mark.parametrize("name", SPECS)
def test_a_saved_model_is_loaded_completely(name, request, tmp_path, drawn):
    saved = drawn(build_model(request.getfixturevalue(name)))
    save_model(saved, tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is type(saved) and loaded.spec == saved.spec
    assert not loaded.training
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_facts_added_by_the_caller_are_kept_in_the_configuration(velocity_spec, tmp_path):
    save_model(build_model(velocity_spec), tmp_path, {"images_seen": 1024})
    config = read_config(tmp_path)
    assert config["images_seen"] == 1024
    assert config["kind"] == "velocity"
    assert config["spec"]["latent_shape"] == [4, 4, 4]


def test_saving_again_replaces_both_files_and_leaves_no_others(velocity_spec, tmp_path, drawn):
    save_model(build_model(velocity_spec), tmp_path)
    newer = drawn(build_model(velocity_spec), seed=1)
    save_model(newer, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert torch.equal(
        load_model(tmp_path).hourglass.mid_level.layers[0].ff.up_proj.weight,
        newer.hourglass.mid_level.layers[0].ff.up_proj.weight,
    )


def test_files_of_two_exports_are_not_mixed(velocity_spec, tmp_path, drawn):
    save_model(build_model(velocity_spec), tmp_path / "one")
    save_model(drawn(build_model(velocity_spec)), tmp_path / "two")
    (tmp_path / "two" / "config.json").replace(tmp_path / "one" / "config.json")
    with pytest.raises(ValueError, match="from different exports"):
        load_model(tmp_path / "one")


def test_a_folder_without_a_model_is_reported_with_its_contents(tmp_path):
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(ValueError, match=r"model\.safetensors and config\.json missing.*events\.jsonl"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        load_model(tmp_path / "nowhere")


def test_an_unknown_kind_is_refused(velocity_spec, tmp_path):
    save_model(build_model(velocity_spec), tmp_path)
    config = read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"kind": "gan"}))
    with pytest.raises(ValueError, match=r"model kind 'gan': known kinds are.*velocity"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec | {"latent_dim": 64}, "spec: VelocitySpec with latent_dim: it has .*latent_shape"),
        (
            lambda spec: spec | {"levels": [spec["levels"][0] | {"heads": 2}]},
            r"spec.levels\[0\]: LevelSpec with heads: it has depth",
        ),
        (lambda spec: spec | {"levels": [{"depth": 1}]}, r"spec.levels\[0\]: LevelSpec without width"),
        (lambda spec: spec | {"levels": 3}, "spec.levels: found 3; give a list"),
        (
            lambda spec: spec | {"mapping": {"widht": 16}},
            "spec.mapping: MappingSpec with widht: it has depth, width",
        ),
        (lambda spec: spec | {"patch_size": 0}, "patch_size=0 must be at least 1"),
        (lambda spec: {}, "spec: VelocitySpec without image_channels, patch_size, levels"),
        (lambda spec: None, "spec: found None"),
    ],
    ids=["field", "level", "short level", "levels", "mapping", "value", "empty", "none"],
)
def test_a_specification_of_another_version_is_refused_with_the_key(change, message, velocity_spec, tmp_path):
    save_model(build_model(velocity_spec), tmp_path)
    config = read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"spec": change(config["spec"])}))
    with pytest.raises(
        ValueError, match=rf"config\.json, of kind velocity: {message}.*export the model again"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_configuration_that_was_cut_off_is_refused(keep, velocity_spec, tmp_path):
    save_model(build_model(velocity_spec), tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text[:keep])
    with pytest.raises(
        ValueError, match=r"config\.json is (empty|incomplete, or not JSON).*export the model again"
    ):
        load_model(tmp_path)


@pytest.mark.processes
def test_models_import_without_any_heavy_library():
    heavy = ["natten", "deepspeed", "wandb", "webdataset", "diffusers", "hydra", "omegaconf", "submitit"]
    heavy += ["torchvision", "open_clip", "PIL", "scipy", "matplotlib"]
    blocked = f"import sys; sys.modules.update(dict.fromkeys({heavy}, None)); import lediflow.models"
    subprocess.run([sys.executable, "-c", blocked], check=True)
