"""A parent that learned the prior of something else is refused, with what differs and what to do."""

import json
import shutil

import pytest
from harness.commands import invoke, succeed
from safetensors.torch import load_file, save_file

from lediflow.models.export import sha256


@pytest.fixture
def parent(trained, tmp_path):
    """A copy of the auxiliary run, to be changed."""
    return shutil.copytree(trained.auxiliary, tmp_path / "auxiliary")


def change_facts(run, **changes):
    path = run / "export" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def retrain(run):
    """Other weights in the place of the old ones."""
    path = run / "export" / "model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(path).items()}, path)
    change_facts(run, weights_sha256=sha256(path))


def train_flow(trained, folder, *options):
    words = [word for word in trained.commands["flow"] if not word.startswith(("run=", "parent="))]
    return invoke(*words, f"run={folder}/flow", f"parent={folder}/auxiliary", "train.images=32", *options)


def test_a_parent_of_other_data_is_refused_unless_that_is_wanted(trained, parent, tmp_path):
    change_facts(parent, data={"path": "elsewhere", "fingerprint": "0123456789abcdef"})
    said = train_flow(trained, tmp_path)
    assert said.status == 2
    assert "trained on other data, elsewhere (fingerprint 0123456789ab), than data.path=" in said.err
    assert "(stage=auxiliary), or say other_data=true" in said.err
    assert not (tmp_path / "flow").exists()
    assert train_flow(trained, tmp_path, "other_data=true").status == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"codec": {"name": "sd2_vae", "weights": "abcdef0123456789"}},
         r"latents of sd2_vae weights abcdef012345, but .* holds pixels"),
        ({"image_size": 32}, "trained at image_size 32, but model.image_size=16"),
    ],
    ids=["codec", "size"],
)  # fmt: skip
def test_a_parent_of_another_space_is_refused_whatever_is_said_of_data(
    trained, parent, tmp_path, change, named
):
    change_facts(parent, **change)
    said = train_flow(trained, tmp_path, "other_data=true")
    assert said.status == 2
    assert all(part in said.err for part in named.split(".*")), said.err


def test_a_parent_of_other_channels_is_refused(trained, parent, tmp_path):
    said = train_flow(trained, tmp_path, "model.channels=3")
    assert said.status == 2
    assert "trained on images of 1 channels, but model.channels=3" in said.err


def test_a_finished_flow_does_not_pass_for_one_of_a_parent_that_was_trained_anew(trained, parent, tmp_path):
    assert train_flow(trained, tmp_path).status == 0
    assert "nothing to do" in train_flow(trained, tmp_path).err
    before = sha256(parent / "export" / "model.safetensors")
    retrain(parent)
    said = train_flow(trained, tmp_path)
    assert said.status == 2
    assert f"parent: {before}, now {sha256(parent / 'export' / 'model.safetensors')}" in said.err


def test_a_finished_flow_does_not_need_its_parent_any_more(trained, parent, tmp_path):
    assert train_flow(trained, tmp_path).status == 0
    shutil.rmtree(parent)
    assert "nothing to do" in train_flow(trained, tmp_path).err


def test_an_unfinished_flow_is_not_continued_on_a_parent_that_was_trained_anew(trained, parent, tmp_path):
    assert train_flow(trained, tmp_path).status == 0
    retrain(parent)
    said = train_flow(trained, tmp_path, "train.images=64")
    assert said.status == 2 and "choose another run=" in said.err


def test_a_dependent_run_of_the_same_data_is_trained_as_before(trained, tmp_path):
    succeed(*[word for word in trained.commands["sampler"] if not word.startswith("run=")],
            f"run={tmp_path}/sampler")  # fmt: skip
