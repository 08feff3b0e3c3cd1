"""A parent that learned the prior of something else is refused, with what differs and what to do."""

import json
import shlex
import shutil
from types import SimpleNamespace

import pytest
import torch
from harness.commands import compose, invoke, succeed
from safetensors.torch import load_file, save_file

from lediflow.config.building.inputs import open_inputs
from lediflow.config.building.run import throughput_of
from lediflow.config.dry_run.cost import work_of
from lediflow.disk import sha256_of
from lediflow.engine.ranks import Ranks


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
    change_facts(run, weights_sha256=sha256_of(path))


def train_flow(trained, folder, *options):
    words = [word for word in trained.commands["flow"] if not word.startswith(("run=", "parent="))]
    return invoke(*words, f"run={folder}/flow", f"parent={folder}/auxiliary", "train.images=32", *options)


def test_a_parent_of_other_data_is_refused_unless_that_is_wanted(trained, parent, tmp_path):
    change_facts(parent, data={"path": "elsewhere", "fingerprint": "0123456789abcdef"})
    said = train_flow(trained, tmp_path)
    assert said.status == 2
    assert "trained on other data, elsewhere (fingerprint 0123456789ab), than data.path=" in said.err
    assert "(stage=auxiliary), or set other_data=true" in said.err
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
def test_a_parent_of_another_space_is_refused_even_with_other_data(trained, parent, tmp_path, change, named):
    change_facts(parent, **change)
    said = train_flow(trained, tmp_path, "other_data=true")
    assert said.status == 2
    assert all(part in said.err for part in named.split(".*")), said.err


def test_a_parent_of_other_channels_is_refused(trained, parent, tmp_path):
    said = train_flow(trained, tmp_path, "model.channels=3")
    assert said.status == 2
    assert "trained on images of 1 channels, but model.channels=3" in said.err


def test_options_that_only_the_parents_training_had_are_named(trained, parent, tmp_path):
    said = train_flow(trained, tmp_path, "model.auxiliary.logvar_floor=-3")
    assert said.status == 0
    assert (
        "keeps its own options: model.auxiliary.logvar_floor: -7.0, now -3.0 has no effect here" in said.err
    )


def test_the_work_of_an_image_is_that_of_the_parent_that_runs_also_in_a_dry_run(trained):
    words = [word for word in trained.commands["flow"] if not word.startswith("synthetic_images")]
    engine = SimpleNamespace(device=torch.device("cpu"))
    commands = [
        compose(*words, *more, "synthetic_images=0") for more in ((), ("model.auxiliary.levels.0.depth=9",))
    ]
    usual, other = (throughput_of(command, open_inputs(command, Ranks()), engine) for command in commands)
    assert other.flops_per_image == usual.flops_per_image > 0
    # a dry run foretells what the run reports
    planned, other_planned = (work_of(command, 1) for command in commands)
    assert other_planned.flops == planned.flops == usual.flops_per_image
    assert other_planned.frozen_parameters == planned.frozen_parameters


def test_a_finished_flow_is_rejected_after_its_parent_was_retrained(trained, parent, tmp_path):
    assert train_flow(trained, tmp_path).status == 0
    assert "nothing to do" in train_flow(trained, tmp_path).err
    before = sha256_of(parent / "export" / "model.safetensors")
    retrain(parent)
    said = train_flow(trained, tmp_path)
    assert said.status == 2
    assert f"parent: {before}, now {sha256_of(parent / 'export' / 'model.safetensors')}" in said.err


def test_a_finished_flow_does_not_need_its_parent(trained, parent, tmp_path):
    assert train_flow(trained, tmp_path).status == 0
    shutil.rmtree(parent)
    assert "nothing to do" in train_flow(trained, tmp_path).err


def test_an_unfinished_flow_is_not_continued_on_a_retrained_parent(trained, parent, tmp_path):
    assert train_flow(trained, tmp_path).status == 0
    retrain(parent)
    said = train_flow(trained, tmp_path, "train.images=64")
    assert said.status == 2 and "choose another run=" in said.err


def test_a_dependent_run_of_the_same_data_is_trained_as_before(trained, tmp_path):
    succeed(*[word for word in trained.commands["sampler"] if not word.startswith("run=")],
            f"run={tmp_path}/sampler")  # fmt: skip


def advised(said):
    """The words after `python -m lediflow` of the command that a message advises."""
    module, *words = shlex.split(said.err.rpartition("train it: python -m lediflow.")[2])
    return module, words


def test_following_the_advice_for_a_missing_parent_trains_that_parent(trained, tmp_path):
    folder = tmp_path / "with a space"
    said = train_flow(trained, folder, "seed=3")
    assert said.status == 2 and "there is no run there; train it" in said.err
    module, words = advised(said)
    assert {"experiment=smoke", "stage=auxiliary", "seed=3", f"data.path={trained.latents}"} <= {*words}
    succeed(module, *words, "train.images=32")
    assert train_flow(trained, folder, "seed=3").status == 0


def test_following_the_advice_for_an_interrupted_parent_finishes_it_with_its_own_options(trained, tmp_path):
    options = ("train.images=32", "seed=4", "stage.beta=0.5", "train.learning_rate=0.003")
    words = [word for word in trained.commands["auxiliary"] if not word.startswith(("run=", "train.images="))]
    succeed(*words, f"run={tmp_path}/auxiliary", *options)
    before = sha256_of(tmp_path / "auxiliary/export/model.safetensors")
    shutil.rmtree(tmp_path / "auxiliary/export")
    said = train_flow(trained, tmp_path)
    assert said.status == 2 and "it has unfinished checkpoints; train it" in said.err
    module, advice = advised(said)
    assert {*options, f"run={tmp_path}/auxiliary"} <= {*advice}
    succeed(module, *advice)
    assert sha256_of(tmp_path / "auxiliary/export/model.safetensors") == before


def test_exports_keep_the_absolute_and_the_relative_path_of_their_parent(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained.root)
    words = [word for word in trained.commands["flow"] if not word.startswith(("run=", "parent="))]
    run = tmp_path / "flow"
    succeed(*words, f"run={run}", "parent=auxiliary", "train.images=32")
    facts = json.loads((run / "export/config.json").read_text())
    assert facts["parent"]["path"] == str(trained.auxiliary)
    assert (run / facts["parent"]["from_run"]).samefile(trained.auxiliary)
    monkeypatch.chdir(tmp_path)
    options = ("count=2", "steps=1", f"sampler={trained.sampler}", "device=cpu")
    succeed("sample", "run=flow", "output=drawn", *options)
    assert "already sampled" in succeed("sample", f"run={run}", f"output={tmp_path}/drawn", *options).out


def test_following_the_advice_for_an_interrupted_flow_finishes_it_on_its_parent(trained, parent, tmp_path):
    flow = tmp_path / "flow"
    assert train_flow(trained, tmp_path).status == 0
    before = sha256_of(flow / "export/model.safetensors")
    shutil.rmtree(flow / "export")
    said = invoke(
        "sample", f"run={flow}", f"sampler={trained.sampler}", f"output={tmp_path}/drawn", "device=cpu"
    )
    assert said.status == 2
    module, words = advised(said)
    assert f"parent={parent}" in words
    succeed(module, *words)
    assert sha256_of(flow / "export/model.safetensors") == before
