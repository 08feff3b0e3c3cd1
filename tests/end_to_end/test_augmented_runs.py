"""Every stage trained on augmented images, at its smallest: what comes of it, and what it may not be mixed with."""

import hashlib
import json
import re

import pytest
import torch
from harness.commands import invoke, succeed

from lediflow.config.building.pipeline import load_pipeline
from lediflow.tracking.event_log import read_events

AUGMENTED = (
    "data.augment.probability=0.5", "data.held_out_fraction=0.2", "train.validation.every_images=32",
    *(f"model.{name}.augmentation=true" for name in ("auxiliary", "velocity", "latent_sampler")),
)  # fmt: skip
STAGES = ("auxiliary", "flow", "sampler", "baseline")


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    """The runs' folder, and each training's command."""
    root = tmp_path_factory.mktemp("augmented")
    commands = {
        name: [word.replace(str(trained.root), str(root)) for word in trained.commands[name]]
        for name in STAGES
    }
    for command in commands.values():
        command[:] = [word for word in command if not word.startswith("data.path=")]
        command += [f"data.path={trained.latents}", *AUGMENTED]
        succeed(*command)
    return root, commands


def weights_hash(run):
    return hashlib.sha256((run / "export/model.safetensors").read_bytes()).hexdigest()


def test_exports_record_augmentation_and_the_held_out_loss_is_measured(path):
    root, _ = path
    for name in STAGES:
        facts = json.loads((root / name / "export/config.json").read_text())
        assert facts["spec"]["augmentation"] and facts["data"]["augmented"]
        events = read_events(root / name / "events.jsonl")
        assert len([event for event in events if event["event"] == "validation"]) == 2


@pytest.mark.parametrize("sampler", ["sampler", None], ids=["learned prior", "Gaussian"])
def test_generation_uses_only_the_zero_augmentation_condition(path, sampler):
    """At zeros the sines of the Fourier features are 0: the weights behind them must have no say."""
    root, _ = path
    pipeline = load_pipeline(root / ("flow" if sampler else "baseline"), sampler and root / sampler)
    before = pipeline(3).images
    spoilt = 0
    for module in pipeline.modules().values():
        for name, weight in module.named_parameters():
            if name.endswith("augmentation.1.weight"):
                torch.nn.init.normal_(weight[:, weight.shape[1] // 2 :])
                spoilt += 1
    assert spoilt == (4 if sampler else 1)  # flow, sampler, encoder, decoder
    assert torch.equal(pipeline(3).images, before)


def test_images_are_sampled_from_the_command_line(path, tmp_path):
    root, _ = path
    succeed("sample", f"run={root}/flow", f"sampler={root}/sampler", f"output={tmp_path}/drawn", "count=2",
            "steps=1", "device=cpu")  # fmt: skip
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2


@pytest.mark.parametrize("name", ["auxiliary", "flow"])
def test_a_continued_run_draws_the_same_augmentations(path, name, tmp_path):
    root, commands = path
    words = [word for word in commands[name] if not word.startswith(("run=", "train.images="))]
    for images in (32, 64):
        succeed(*words, f"run={tmp_path}/run", f"train.images={images}")
    assert weights_hash(tmp_path / "run") == weights_hash(root / name)


def test_a_parent_without_augmentation_is_refused_with_the_command_to_train_one(path, trained, tmp_path):
    _, commands = path
    words = [word for word in commands["flow"] if not word.startswith(("run=", "parent="))]
    said = invoke(*words, f"parent={trained.auxiliary}", f"run={tmp_path}/run")
    assert said.status == 2
    assert re.search(r"trained on images as they are, .*model\.auxiliary\.augmentation=true", said.err)
    assert not (tmp_path / "run").exists()


def test_a_sampler_with_augmentation_does_not_encode_once(path, tmp_path):
    _, commands = path
    words = [word for word in commands["sampler"] if not word.startswith("run=")]
    said = invoke(*words, f"run={tmp_path}/run", "stage.encode_once=true")
    assert said.status == 2 and "stage.encode_once=true, but with data.augment.probability" in said.err
    assert "for the whole training" not in succeed(*words, f"run={tmp_path}/run", "train.images=640").err


def test_the_augmentation_input_belongs_to_the_identity_of_a_run(trained):
    said = invoke(*trained.commands["auxiliary"], "model.auxiliary.augmentation=true")
    assert said.status == 2
    assert "model.auxiliary.augmentation: nothing, now True" in said.err
