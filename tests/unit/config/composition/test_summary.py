"""The summary at the end of a training names what came out, and commands that work on this run."""

import json
import math

import pytest
from harness.commands import compose

from lediflow.config.composition import summary
from lediflow.tracking.event_log import JsonlTracker


def finished(root, stage, parent="a" * 64, **facts):
    """An exported run."""
    (root / "export").mkdir(parents=True)
    facts = {"stage": stage, "prior": "learned", "images_seen": 192, "parent": {"sha256": parent}} | facts
    (root / "export" / "config.json").write_text(json.dumps(facts))
    log = JsonlTracker(root / "events.jsonl")
    log.record("train", 192, loss=0.25, images_per_second=812.4)
    log.record("pictures", 128, pictures={})
    log.record("validation", 192, loss=0.5, averaged_loss=0.375, best_loss=0.3, best_images_seen=96)
    log.close()


@pytest.fixture
def command(tmp_path):
    def make(*overrides):
        return compose("train", "experiment=smoke", f"paths.runs={tmp_path}", *overrides)

    return make


def test_losses_speed_and_folder_are_shown(command, tmp_path):
    finished(tmp_path / "aux", "auxiliary")
    text = summary.summary(command("stage=auxiliary", f"run={tmp_path}/aux"), seconds=61)
    assert "auxiliary (learned prior)" in text and "192 of 192 images; this start took 61 s" in text
    assert "loss      0.25, held out 0.375 (lowest 0.3 at 96 images)" in text
    assert "812 images/s" in text and f"{tmp_path}/aux/export" in text
    assert f"{tmp_path}/aux/pictures/000000000128" in text
    assert len(text.splitlines()) < 24 and f"stage=flow parent={tmp_path}/aux " in text


def test_a_number_that_is_not_finite_is_named_with_its_place_and_the_samples(command, tmp_path):
    finished(tmp_path / "aux", "auxiliary")
    log = JsonlTracker(tmp_path / "aux/events.jsonl")
    log.record("bad_step", 144, norm=math.nan, samples=["cell7", "cell9"])
    log.record("train", 192, loss=math.nan)
    log.record("validation", 180, loss=0.5, averaged_loss=math.inf)
    log.close()
    text = summary.summary(command("stage=auxiliary", f"run={tmp_path}/aux"), seconds=61)
    assert "loss      nan (not finite) at 192 images, held out inf (not finite) at 180 images" in text
    assert "skipped   steps without a finite gradient, last at 144 images: cell7, cell9" in text


def test_a_flow_is_sampled_with_the_sampler_of_the_same_parent_next_to_it(command, tmp_path):
    finished(tmp_path / "flow", "flow")
    finished(tmp_path / "another", "latent_sampler", parent="b" * 64)
    of_flow = command("stage=flow", f"run={tmp_path}/flow", f"parent={tmp_path}/aux")
    assert f"sampler={tmp_path}/sampler" in summary.summary(of_flow, 1)  # to be trained first
    assert "stage=latent_sampler" in summary.summary(of_flow, 1)
    finished(tmp_path / "chosen", "latent_sampler")
    text = summary.summary(of_flow, 1)
    assert f"lediflow.sample run={tmp_path}/flow sampler={tmp_path}/chosen " in text
    assert f"lediflow.evaluate run={tmp_path}/flow sampler={tmp_path}/chosen data.path=" in text
    assert f"lediflow.report {tmp_path}/aux {tmp_path}/flow {tmp_path}/chosen --output" in text
    assert "stage=latent_sampler" not in text


def test_the_partner_that_the_training_used_comes_before_one_next_to_it(command, tmp_path):
    finished(tmp_path / "flow", "flow")
    finished(tmp_path / "chosen", "latent_sampler")
    parent = f"parent={tmp_path}/aux"
    of_flow = ("stage=flow", f"run={tmp_path}/flow", parent)
    for given in ("sampler=elsewhere/used", "train.pictures.sampler=elsewhere/used"):
        assert "sampler=elsewhere/used output=" in summary.summary(command(*of_flow, given), 1)
    of_sampler = (
        "stage=latent_sampler",
        f"run={tmp_path}/chosen",
        parent,
        "train.pictures.flow=elsewhere/used",
    )
    text = summary.summary(command(*of_sampler), 1)
    assert f"lediflow.sample run=elsewhere/used sampler={tmp_path}/chosen " in text


def of_classes(*names):
    return {"spec": {"num_classes": len(names)}, "data": {"classes": list(names)}}


def test_a_flow_is_not_suggested_with_a_sampler_of_other_classes(command, tmp_path):
    finished(tmp_path / "flow", "flow", **of_classes("ant", "bee"))
    finished(tmp_path / "none", "latent_sampler")
    for name, others in (("renamed", ("ant", "cat")), ("more", ("ant", "bee", "cat"))):
        finished(tmp_path / name, "latent_sampler", **of_classes(*others))
    of_flow = command("stage=flow", f"run={tmp_path}/flow", f"parent={tmp_path}/aux")
    assert f"sampler={tmp_path}/none output=" in summary.summary(of_flow, 1)
    finished(tmp_path / "same", "latent_sampler", **of_classes("ant", "bee"))
    assert f"sampler={tmp_path}/same output=" in summary.summary(of_flow, 1)


def test_the_baseline_needs_no_sampler(command, tmp_path):
    finished(tmp_path / "fm", "flow", prior="gaussian")
    text = summary.summary(command("stage=flow", "prior=gaussian", f"run={tmp_path}/fm"), 1)
    assert f"lediflow.sample run={tmp_path}/fm output=" in text and "sampler" not in text


def test_paths_are_quoted_for_a_shell_and_for_hydra(command, tmp_path):
    finished(tmp_path / "a run", "flow", prior="gaussian")
    text = summary.summary(command("stage=flow", "prior=gaussian", f"run='{tmp_path}/a run'"), 1)
    assert f"lediflow.report '{tmp_path}/a run'" in text
    assert f"""lediflow.sample 'run="{tmp_path}/a run"'""" in text


def test_only_the_end_of_a_long_log_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "TAIL_BYTES", 300)
    log = JsonlTracker(tmp_path / "events.jsonl")
    for seen in range(20):
        log.record("train" if seen else "early", seen, loss=1.0 + seen)
    log.close()
    found = summary.last_events(tmp_path / "events.jsonl")
    assert set(found) == {"train"} and found["train"]["loss"] == 20.0
