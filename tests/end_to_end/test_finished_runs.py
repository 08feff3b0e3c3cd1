"""What a finished run's folder may suffer, and what the same command then does."""

import hashlib
import json
import re
import shutil

import pytest
from harness.commands import invoke, succeed
from omegaconf import OmegaConf

from lediflow.data.synthetic import make_synthetic_shards
from lediflow.tracking.event_log import read_events

OPTIONS = (
    "experiment=smoke", "stage=auxiliary", "synthetic_images=32", "engine.device=cpu",
    "train.checkpoint.every_images=48",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    succeed("train", *OPTIONS, f"data.path={folder}/shards", f"run={folder}/run", "train.images=96")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, and its command."""
    folder = tmp_path / "run"
    shutil.copytree(finished / "run", folder)
    return folder, (*OPTIONS, f"data.path={finished}/shards", f"run={folder}")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_is_left_alone(run):
    folder, command = run
    before = sha256(folder / "events.jsonl")
    assert "nothing to do" in succeed("train", *command, "train.images=96").err
    assert sha256(folder / "events.jsonl") == before


def test_options_that_would_have_given_other_weights_are_named_or_refused(run):
    _, command = run
    said = succeed(
        "train", *command, "train.images=96", "train.learning_rate=1e-4", "train.log_every_images=48"
    )
    assert "of other options (train.learning_rate: 0.002, now 0.0001); choose another run=" in said.err
    assert (
        "other options (train.images: 96, now 48); choose"
        in succeed("train", *command, "train.images=48").err
    )
    said = invoke("train", *command, "train.images=96", "data.held_out_fraction=0.1")
    assert said.status == 2
    assert "other options (data.held_out_fraction: 0.0, now 0.1); choose another run=" in said.err


def test_other_data_with_its_name_are_refused(run, tmp_path):
    _, command = run
    make_synthetic_shards(tmp_path / "other", 4, size=16, channels=1, seed=1)
    said = invoke("train", *command, f"data.path={tmp_path}/other", "train.images=96")
    assert said.status == 2
    assert re.search(r"other options \(data: \w+, now \w+ in .*/other\); choose another run=", said.err)
    assert "nothing to do" in succeed("train", *command, "data.path=/gone", "train.images=96").err


@pytest.mark.parametrize("damage", ["no weights", "half the weights", "an empty description"])
def test_an_export_that_was_damaged_is_made_again(run, damage):
    folder, command = run
    weights = folder / "export/model.safetensors"
    whole = sha256(weights)
    match damage:
        case "no weights":
            weights.unlink()
        case "half the weights":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "an empty description":
            (folder / "export/config.json").write_text("")
    succeed("train", *command, "train.images=96")
    assert sha256(weights) == whole
    assert json.loads((folder / "export/config.json").read_text())["images_seen"] == 96


def test_the_export_is_of_the_end_of_the_run_even_if_a_later_damaged_checkpoint_exists(run):
    folder, command = run
    broken = folder / "checkpoints/000000000096/model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    shutil.rmtree(folder / "export")
    succeed("train", *command, "train.images=64")
    ended = sha256(folder / "checkpoints/000000000064/model.safetensors")
    assert sha256(folder / "export/model.safetensors") == ended != sha256(broken)


def test_a_width_that_was_not_kept_from_the_start_is_refused(run):
    _, command = run
    said = invoke("train", *command, "train.images=144", "train.ema.sigma_rels=[0.05,0.1,0.2]")
    assert said.status == 2
    assert "[0.2] were not kept from the start" in said.err and "--ema WIDTH" in said.err


def test_options_that_change_nothing_of_its_identity_are_noted_when_they_change(run):
    folder, command = run
    succeed("train", *command, "train.images=144", "engine.gradient_clip=0.5")
    (noted,) = [event for event in read_events(folder / "events.jsonl") if event["event"] == "options"]
    assert noted["images_seen"] == 96
    changed = [change for change in noted["changed"] if not change.startswith("options.run")]  # it is a copy
    assert changed == ["options.engine.gradient_clip: 1.0, now 0.5", "options.train.images: 96, now 144"]


REMOVED = {"stop.margin_seconds": 60.0, "watchdog.grace_seconds": 30.0}


def test_a_run_whose_record_names_options_of_an_earlier_release_continues(run, finished, tmp_path):
    folder, command = run
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(folder, undisturbed)
    record = OmegaConf.load(folder / "config.yaml")
    for option, value in REMOVED.items():
        OmegaConf.update(record, option, value, force_add=True)
    OmegaConf.save(record, folder / "config.yaml")

    for place in (folder, undisturbed):
        succeed("train", *command[:-1], f"run={place}", "train.images=144")
    ends = [sha256(path) for path in tmp_path.glob("*/checkpoints/000000000144/slice-*")]
    assert len(ends) == 2 and len({*ends}) == 1
    (noted,) = [event for event in read_events(folder / "events.jsonl") if event["event"] == "options"]
    assert {f"options.{option}: {value}, now nothing" for option, value in REMOVED.items()} <= {
        *noted["changed"]
    }


def test_a_stop_file_created_too_late_does_not_stop_the_next_start(run):
    folder, command = run
    (folder / "stop").touch()
    assert invoke("train", *command, "train.images=112").status in (0, 80)
    assert not (folder / "stop").exists()
