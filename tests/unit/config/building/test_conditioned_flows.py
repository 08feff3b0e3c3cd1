"""Every way in which latent and class reach flow and latent sampler trains and samples from the command line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from harness.commands import compose, succeed

from lediflow.config.building.inputs import warn_of_empty_classes
from lediflow.config.building.pipeline import check_common_classes
from lediflow.data.streams.order import is_held_out
from lediflow.errors import UserError
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


def of_classes(*names):
    return {"spec": {"num_classes": len(names)}, "data": {"classes": list(names)}}


def test_a_flow_and_a_sampler_of_other_classes_are_refused_or_named(caplog):
    flow = of_classes("ant", "bee")
    for harmless in (flow, of_classes(), {}):  # without classes; of an earlier release
        check_common_classes(flow, harmless, "f", "s")
    check_common_classes(of_classes(), flow, "f", "s")
    assert not caplog.text
    with pytest.raises(UserError, match="run=f was trained with 2 classes, sampler=s with 1"):
        check_common_classes(flow, of_classes("ant"), "f", "s")
    check_common_classes(flow, of_classes("ant", "cat"), "f", "s")
    assert "1 of 2 differ: 1 was cat, here it is bee" in caplog.text


@pytest.mark.parametrize(
    ("classes", "held_out", "said"),
    [
        (3, 0, "1 of the model's 3 classes (2: cat) have no image among the 4 "),
        (5, 0, "3 of the model's 5 classes (2: cat, 3: no name, 4: no name) have no image among the 4 "),
        (2, 0, ""),
        (0, 0, ""),
        (2, 0.5, "1 of the model's 2 classes (0: ant) have no image among the "),
    ],
)
def test_classes_that_no_training_image_has_are_named(classes, held_out, said, caplog):
    keys = np.arange(4)
    labels = np.where(is_held_out(keys, 0.5), 0, 1)  # all ants are held out
    assert {*labels} == {0, 1}
    contents = SimpleNamespace(classes=["ant", "bee", "cat"])
    index = SimpleNamespace(table={"key": keys, "label": labels}, contents=contents)
    options = (f"model.velocity.num_classes={classes}", f"data.held_out_fraction={held_out}")
    warn_of_empty_classes(
        compose("train", "experiment=smoke", "stage=flow", *options), SimpleNamespace(index=index)
    )
    assert said in caplog.text and bool(caplog.text) == bool(said)


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
