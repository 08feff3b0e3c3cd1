"""`warm_start=`: a run begins with the weights of another one, and is not taken for a run that began otherwise."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from harness.commands import compose, invoke, succeed
from safetensors.torch import load_file

from lediflow.config.building.models import load_warm_start, warn_of_other_classes
from lediflow.disk import sha256_of
from lediflow.errors import UserError
from lediflow.models import load_model

STILL = ("train.learning_rate=0", "train.weight_decay=0")  # no step moves a weight


def command_of(trained, name, run, *options):
    """The command of a trained run, for another folder."""
    words = [word for word in trained.commands[name] if not word.startswith(("run=", "train.images="))]
    return [*words, "train.images=32", f"run={run}", *options]


def weights(run):
    return load_file(run / "export" / "model.safetensors")


@pytest.mark.parametrize("source", ["run", "export"])
def test_a_run_begins_with_the_weights_and_averages_it_is_given(trained, tmp_path, source):
    start = trained.flow if source == "run" else trained.flow / "export"
    succeed(*command_of(trained, "flow", tmp_path / "run", f"warm_start={start}", *STILL))
    found, expected = weights(tmp_path / "run"), weights(trained.flow)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)  # averaging rounds


def test_the_initial_weights_of_a_run_are_recorded_and_what_they_have_seen(trained, tmp_path):
    options = (f"warm_start={trained.auxiliary}", "data.held_out_fraction=0.5")
    said = succeed(*command_of(trained, "auxiliary", tmp_path / "run", *options)).err
    assert "this run with 0.5: it has seen images that are held out here" in said
    facts = json.loads((tmp_path / "run" / "export" / "config.json").read_text())
    pinned = sha256_of(trained.auxiliary / "export" / "model.safetensors")
    assert facts["warm_start"] == {"path": str(trained.auxiliary / "export"), "sha256": pinned}


@pytest.mark.parametrize("images", [32, 64], ids=["finished", "to be continued"])
def test_a_run_that_began_with_other_options_is_refused(trained, tmp_path, images):
    command = command_of(trained, "auxiliary", tmp_path / "run")
    succeed(*command)
    said = invoke(*command, f"train.images={images}", f"warm_start={trained.auxiliary}")
    pinned = sha256_of(trained.auxiliary / "export" / "model.safetensors")
    assert said.status == 2
    assert f"warm_start: None, now {pinned}" in said.err and "choose another run=" in said.err


def test_a_warm_started_run_is_continued_by_the_same_command(trained, tmp_path):
    command = command_of(trained, "auxiliary", tmp_path / "run", f"warm_start={trained.auxiliary}")
    succeed(*command)
    assert "nothing to do" in succeed(*command).err
    assert "continuing at 32 of 48" in succeed(*command, "train.images=48").err


def refusal(*options):
    with pytest.raises(UserError) as said:
        load_warm_start(compose("train", "experiment=smoke", "data.path=a", *options))
    return str(said.value)


def test_weights_of_another_kind_are_refused(trained):
    said = refusal("stage=flow", f"warm_start={trained.auxiliary}")
    assert re.search(
        "of kind auxiliary, but stage=flow trains one of kind velocity; give a run of that", said
    )


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["prior=gaussian"], r"condition\.vector\.weight is \d+x\d+, here not there"),
        (["model.velocity.mapping.width=64"], r"weight is 16x1, here 32x1"),
        (["model.velocity.levels.0.depth=2"], r"is not there, here \d+"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_first_weight_of_another_shape_is_named(trained, options, difference):
    said = refusal("stage=flow", f"warm_start={trained.flow}", *options)
    assert re.search(difference, said) and "give the model= and prior= options" in said


def test_options_that_do_not_affect_shapes_may_differ(trained):
    command = compose(
        "train", "experiment=smoke", "data.path=a", "stage=flow", "seed=5", f"warm_start={trained.flow}",
        "model.velocity.levels.0.kernel_size=5",
    )  # fmt: skip
    start = load_warm_start(command)
    torch.testing.assert_close(start.weights, load_model(trained.flow / "export").state_dict())


def test_a_folder_without_weights_is_named(tmp_path):
    assert f"warm_start={tmp_path}" in refusal(f"warm_start={tmp_path}", "stage=auxiliary")


def test_weights_that_do_not_belong_to_their_configuration_are_refused(trained, tmp_path):
    shutil.copytree(trained.auxiliary / "export", tmp_path / "export")
    shutil.copy(trained.flow / "export" / "model.safetensors", tmp_path / "export")
    assert "are from different exports" in refusal(f"warm_start={tmp_path}", "stage=auxiliary")


def with_classes(names, num_classes=3):
    return SimpleNamespace(path="a", facts={"spec": {"num_classes": num_classes}, "data": {"classes": names}})


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (with_classes(["ant", "bee", "cat"]), "1 of 2 differ: 1 was bee, here it is cat"),
        (with_classes(["ant", "cat", "dog"]), ""),  # the data lacks the last one
        (with_classes(["ant", "bee"], num_classes=0), ""),
        (with_classes(None), ""),  # of an earlier release
        (None, ""),
    ],
)
def test_a_model_that_knows_other_classes_is_named(model, said, caplog):
    """Names as labels are numbered in sorted order: a set without bees numbers the cats as another one its bees."""
    reader = SimpleNamespace(index=SimpleNamespace(contents=SimpleNamespace(classes=["ant", "cat"])))
    warn_of_other_classes(reader, {"warm_start": model})
    assert said in caplog.text and bool(caplog.text) == bool(said)
