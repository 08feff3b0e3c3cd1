"""No command writes over files that are not its own, or takes a record for work that is not there."""

import json
import re
import signal

import pytest
from harness.commands import invoke, succeed
from harness.processes import start
from harness.small_features import small_features
from PIL import Image


def content(folder):
    """Every file below a folder with its bytes."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def theirs(tmp_path):
    """A folder of a user's files, with names that commands would write as well."""
    folder = tmp_path / "MY PHOTOS"
    folder.mkdir()
    for name in ("000000.png", "table.md", "results.json", "config.yaml", "config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def evaluation(trained):
    return ("evaluate", f"run={trained.baseline}", f"data.path={trained.latents}", "count=8", "step_counts=[0]",
            "reference_count=16", f"paths.runs={trained.root}", *small_features(trained.root))  # fmt: skip


COMMANDS = {
    "sample": lambda trained: ("sample", f"run={trained.baseline}", "count=1", "output={}"),
    "evaluate": lambda trained: (*evaluation(trained), "output={}"),
    "prior": lambda trained: (
        "evaluate", "mode=prior", f"run={trained.auxiliary}", f"data.path={trained.latents}", "output={}"
    ),
    "folders": lambda trained: (
        "evaluate", f"images={trained.pictures}/bar", f"reference={trained.pictures}/disc", "output={}"
    ),
    "prepare": lambda trained: ("prepare", f"source={trained.pictures}", "size=16", "output={}"),
    "encode": lambda trained: ("encode", f"source={trained.shards}", "output={}"),
    "train": lambda trained: (*trained.commands["baseline"][:-1], "run={}"),
    "toy pictures": lambda trained: (
        "train", "experiment=smoke", "stage=auxiliary", f"run={trained.root}/new", "data.path={}"
    ),
    "export": lambda trained: ("checkpoint", "export", trained.auxiliary, "--output", "{}"),
    "report": lambda trained: ("report", trained.baseline, "--output", "{}/table.md"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_with_foreign_files_is_refused_and_unchanged(trained, theirs, name):
    before = content(theirs)
    said = invoke(*(str(word).format(theirs) for word in COMMANDS[name](trained)))
    assert said.status == 2 and str(theirs) in said.err
    assert "is not empty" in said.err or "is not a report" in said.err
    assert content(theirs) == before
    if name == "toy pictures":
        assert f"data.path={theirs}" in said.err and "set synthetic_images=0" in said.err
        assert "empty this one" not in said.err  # it may hold photographs


@pytest.mark.processes
def test_a_killed_sampling_continues_and_leaves_no_other_pictures(trained, tmp_path):
    command = ("sample", f"run={trained.baseline}", "steps=1", "batch_size=2", "device=cpu")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start("lediflow.sample", *command[1:], f"output={killed}", "count=100000")
    process.wait_until((killed / "000009.png").exists)
    process.send(signal.SIGKILL)
    assert process.wait().status == -signal.SIGKILL
    for path in killed.glob("*.png"):
        Image.open(path).load()
    said = invoke("evaluate", f"images={killed}", f"reference={trained.pictures}/disc")
    assert said.status == 2 and "is unfinished" in said.err
    there = len(list(killed.glob("*.png")))
    continued = succeed(*command, f"output={killed}", f"count={there + 2}").out
    kept = int(re.search(rf"(\d+) of {there + 2} images are in", continued)[1])
    assert there - 2 <= kept <= there  # a batch of 2 may have been written but not recorded
    assert "removing" not in continued
    succeed(*command, f"output={whole}", f"count={there + 2}")
    pictures = {path.name: path.read_bytes() for path in content(whole) if path.suffix == ".png"}
    assert {path.name: path.read_bytes() for path in content(killed) if path.suffix == ".png"} == pictures
    assert json.loads((killed / "samples.json").read_text())["count"] == there + 2
    assert (
        f"removing {there - 2} images beyond count=4" in succeed(*command, f"output={killed}", "count=4").out
    )


def test_a_picture_that_was_deleted_or_added_is_noticed_by_all(trained, tmp_path):
    command = ("sample", f"run={trained.baseline}", "steps=1", f"output={tmp_path}", "count=4", "device=cpu")
    evaluate = ("evaluate", f"images={tmp_path}", f"reference={trained.pictures}/disc")
    succeed(*command)
    whole = content(tmp_path)
    (tmp_path / "000001.png").unlink()
    assert "3 of the 4 pictures" in invoke(*evaluate).err
    assert "sampled: 4 images" in succeed(*command).out
    assert content(tmp_path) == whole
    (tmp_path / "000004.png").write_bytes((tmp_path / "000003.png").read_bytes())
    for words in (evaluate, command):
        said = invoke(*words)
        assert said.status == 2 and "does not list (000004.png)" in said.err


def test_figures_of_an_evaluation_that_were_deleted_are_made_again(trained, tmp_path):
    command = (*evaluation(trained), f"output={tmp_path}")
    succeed(*command)
    (tmp_path / "table.md").unlink()
    assert "already evaluated" not in succeed(*command).out
    assert (tmp_path / "table.md").is_file()
    assert "already evaluated" in succeed(*command).out


def test_results_from_before_the_option_precision_are_those_of_float32(trained, tmp_path):
    command = (*evaluation(trained), f"output={tmp_path}")
    succeed(*command, "precision=float32")
    path = tmp_path / "results.json"
    written = json.loads(path.read_text())
    del written["results"]["asked"]["options"]["precision"]
    path.write_text(json.dumps(written))
    assert "already evaluated" in succeed(*command, "precision=float32").out
    assert "already evaluated" not in succeed(*command, "precision=bfloat16").out


def test_a_killed_evaluation_leaves_no_results_with_figures_of_another_one(trained, tmp_path, monkeypatch):
    command = (*evaluation(trained), f"output={tmp_path}")
    succeed(*command)
    with monkeypatch.context() as patched:
        patched.setattr("lediflow.evaluation.modes.metrics.write_views", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            invoke(*command, "seed=1")
    assert not (tmp_path / "results.json").exists()
    assert "already evaluated" not in succeed(*command).out
