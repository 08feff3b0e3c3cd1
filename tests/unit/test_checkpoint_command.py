"""`python -m lediflow.checkpoint`: what it shows, what it refuses, and the weights that it takes out."""

import json
import re
import shutil

import pytest
import torch
from harness.commands import invoke, succeed
from safetensors.torch import load_file

from lediflow.engine.checkpoints import Checkpoint, CheckpointFolder
from lediflow.models import load_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of 192 images with averages stored at 96 and 192."""
    root = tmp_path_factory.mktemp("checkpoints")
    succeed(
        "train", "experiment=smoke", "stage=auxiliary", "engine.device=cpu", f"data.path={root}/shards",
        f"run={root}/run", "train.checkpoint.snapshot_every_images=96",
    )  # fmt: skip
    return root / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(trained, tmp_path / "run")


def newest(run):
    return Checkpoint(CheckpointFolder(run / "checkpoints").paths()[-1])


def break_newest(run):
    path = next(newest(run).path.glob("slice-*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_inspect_shows_each_checkpoint_with_its_steps_and_ranks(trained):
    lines = [line.split() for line in invoke("checkpoint", "inspect", trained).out.splitlines()]
    assert lines[0] == ["images", "steps", "ranks", "size", "age", "state"]
    assert [(line[0], line[1], line[2], line[-1]) for line in lines[1:3]] == [
        ("96", "6", "1", "whole"),
        ("192", "12", "1", "whole"),
    ]
    assert " ".join(lines[-1]).startswith("stored averages at 96, 192 images")


def test_inspect_names_what_is_wrong(run):
    break_newest(run)
    said = invoke("checkpoint", "inspect", run)
    assert said.status == 0
    assert "does not match its SHA-256" in said.out


def test_verify_accepts_valid_checkpoints_and_exits_with_2_if_one_is_damaged(run):
    assert invoke("checkpoint", "verify", run).status == 0
    break_newest(run)
    said = invoke("checkpoint", "verify", run)
    assert said.status == 2
    assert "error: 1 of 2 checkpoints" in said.err
    assert "(000000000192)" in said.err


def test_the_exported_average_is_the_finished_runs_own(run):
    own = (run / "export" / "model.safetensors").read_bytes()
    description = json.loads((run / "export" / "config.json").read_text())
    shutil.rmtree(run / "export")
    succeed("checkpoint", "export", run)
    assert (run / "export" / "model.safetensors").read_bytes() == own
    found = json.loads((run / "export" / "config.json").read_text())
    assert {key: found[key] for key in description} == description


def test_an_earlier_checkpoint_can_be_exported(run, tmp_path):
    succeed("checkpoint", "export", run, "--images", "96", "--output", tmp_path / "early")
    assert json.loads((tmp_path / "early" / "config.json").read_text())["images_seen"] == 96


def test_a_damaged_newest_checkpoint_is_skipped(run, tmp_path):
    break_newest(run)
    succeed("checkpoint", "export", run, "--output", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["images_seen"] == 96


def test_raw_weights_are_those_of_the_last_step(run, tmp_path):
    succeed("checkpoint", "export", run, "--weights", "raw", "--output", tmp_path / "out")
    found, state = load_model(tmp_path / "out").state_dict(), newest(run).tensors()
    assert all(
        torch.equal(found[name], state[f"weight/{name}"]) for name in found if f"weight/{name}" in state
    )


def test_an_average_of_a_stored_width_is_the_one_that_was_kept(run, tmp_path):
    succeed("checkpoint", "export", run, "--ema", "0.05", "--output", tmp_path / "out")
    found, state = load_file(tmp_path / "out" / "model.safetensors"), newest(run).tensors()
    for name in found:
        # stored in float16
        torch.testing.assert_close(found[name], state[f"ema_0.050/{name}"], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "--images", "97"], "there is no checkpoint at 97 images; choose one of 96, 192"),
        (["export", "--ema", "0.5"], "must be between 0 and"),
    ],
)
def test_impossible_requests_are_refused_with_possible_ones(trained, arguments, words):
    verb, *options = arguments
    said = invoke("checkpoint", verb, trained, *options)
    assert said.status == 2
    assert words in said.err


def test_a_folder_without_checkpoints_is_distinguished_from_a_run(tmp_path):
    said = invoke("checkpoint", "inspect", tmp_path)
    assert said.status == 2
    assert "has no checkpoints; give the run folder" in said.err


def test_the_checkpoints_own_averages_are_used_if_none_were_stored(run, tmp_path):
    shutil.rmtree(run / "averages")
    said = invoke("checkpoint", "export", run, "--ema", "0.1", "--output", tmp_path / "out")
    assert said.status == 0
    found, state = load_file(tmp_path / "out" / "model.safetensors"), newest(run).tensors()
    for name in found:
        torch.testing.assert_close(found[name], state[f"ema_0.100/{name}"], rtol=1e-5, atol=1e-7)


def test_the_misfit_of_a_width_is_printed_and_recorded(run, tmp_path):
    said = invoke("checkpoint", "export", run, "--ema", "0.2", "--output", tmp_path / "out")
    described = json.loads((tmp_path / "out" / "config.json").read_text())["weights"]
    assert described.startswith("averaged afterwards, sigma_rel 0.2, misfit ")
    assert described in said.out


def test_verify_names_damaged_averages_and_export_omits_them(run, tmp_path):
    path = run / "averages" / "000000000096.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    said = invoke("checkpoint", "verify", run)
    assert said.status == 2
    assert "1 of 2 stored averages" in said.err
    assert "(000000000096.safetensors)" in said.err
    assert "000000000096.safetensors: it cannot be read" in invoke("checkpoint", "inspect", run).out
    assert invoke("checkpoint", "export", run, "--ema", "0.075", "--output", tmp_path / "out").status == 0


def test_an_export_that_cannot_be_written_is_a_sentence(trained, tmp_path):
    (tmp_path / "file").write_text("")
    said = invoke("checkpoint", "export", trained, "--output", tmp_path / "file")
    assert said.status == 2
    assert said.err.startswith("error: ")
    assert str(tmp_path / "file") in said.err


def test_inspect_reports_a_checkpoint_that_is_removed_meanwhile(run):
    (run / "checkpoints/000000000001").mkdir()
    (run / "checkpoints/000000000001/manifest.json").symlink_to(run / "nowhere")
    said = succeed("checkpoint", "inspect", run)
    assert re.search(r"^ *1 .*cannot be read", said.out, re.M)


def test_files_left_by_desktops_do_not_make_a_checkpoint_invalid(run):
    for path in (run / "checkpoints").iterdir():
        (path / ".DS_Store").touch()
    succeed("checkpoint", "verify", run)


def test_a_name_that_is_not_utf8_does_not_count_as_a_damaged_checkpoint():
    said = invoke("checkpoint", "verify", "runs/a\udcff")
    assert said.status == 2
    assert "not UTF-8" in said.err and "broken" not in said.err
