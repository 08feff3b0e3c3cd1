"""Every way in which latent and class reach flow and latent sampler trains and samples from the command line."""

import json

import pytest
from harness.commands import succeed

from lediflow.models import load_model
from lediflow.models.specs import CONDITIONINGS


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_flow_with_latent_and_class_trains_and_is_guided(conditioning, trained, tmp_path):
    model = [f"model.velocity.conditioning={conditioning}", "model.velocity.num_classes=2"]
    train(trained.commands["flow"], tmp_path, "flow", *model)
    spec = load_model(tmp_path / "flow" / "export").spec
    assert (spec.conditioning, spec.latent_shape, spec.num_classes) == (conditioning, [2, 4, 4], 2)
    # flows from before latent samplers had classes must remain the same runs
    identity = json.loads((tmp_path / "flow/export/config.json").read_text())["identity"]
    assert "num_classes" not in identity["model"]["latent_sampler"]

    facts = sampled(tmp_path, trained.sampler, "labels=[0,1]", "guidance=2")
    assert (facts["labels"], facts["guidance"], facts["nfe"]) == ([0, 1], 2.0, 6)
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2


def test_one_option_gives_flow_and_latent_sampler_their_classes(trained, tmp_path):
    for name in ("flow", "sampler"):
        train(
            trained.commands[name],
            tmp_path,
            name,
            "model.velocity.num_classes=2",
            "stage.label_dropout=0.2",
        )
    assert load_model(tmp_path / "sampler" / "export").spec.num_classes == 2
    facts = sampled(tmp_path, tmp_path / "sampler", "labels=[1]", "latent_guidance=3")
    assert (facts["labels"], facts["latent_guidance"], facts["nfe"]) == ([1], 3.0, 3)


def train(command, folder, name, *options):
    """Repeat a training of the session, on pictures of two classes."""
    words = [word for word in command if not word.startswith(("run=", "data.path="))]
    # the parent has learned pictures without classes
    words += [f"data.path={folder}/data", "synthetic_images=32", "train.images=32", "other_data=true"]
    succeed(*words, f"run={folder}/{name}", *options)


def sampled(folder, sampler, *options):
    """The record of two images of the flow."""
    runs = (f"run={folder}/flow", f"sampler={sampler}", f"output={folder}/samples")
    succeed("sample", *runs, "count=2", "device=cpu", "solver=euler", "steps=3", *options)
    return json.loads((folder / "samples" / "samples.json").read_text())
