"""A run with dropout, a growing beta and free bits: interrupted, it is the run that was not."""

import json
from dataclasses import replace

import pytest
import torch
from harness.commands import succeed
from harness.curves import assert_same_tensors, events, newest_state

from lediflow.models import build_model, load_model

HELD_BACK = ("model.auxiliary.levels.0.dropout=0.2", "stage.beta_warmup_images=64", "stage.free_bits=0.1")


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    root = tmp_path_factory.mktemp("regularised")

    def started(name, images, *options):
        succeed(
            "train", "experiment=smoke", "stage=auxiliary", "engine.device=cpu", "data.held_out_fraction=0.2",
            f"data.path={root}/shards", f"run={root}/{name}", f"train.images={images}", "train.log_every_images=16",
            "train.validation.every_images=16", *options,
        )  # fmt: skip
        return root / name

    return started


@pytest.fixture(scope="module")
def straight(train):
    return train("straight", 96, *HELD_BACK)


def test_a_continued_run_is_the_run_that_went_through_bit_for_bit(train, straight):
    train("continued", 48, *HELD_BACK)
    continued = train("continued", 96, *HELD_BACK, "engine.activation_checkpointing=true")
    assert_same_tensors(newest_state(continued), newest_state(straight))


def test_beta_follows_the_images_seen_and_channels_add_up(straight):
    curve = events(straight, "train")
    means = [sum(min(1, k / 64) for k in range(start, start + 16)) / 16 for start in range(0, 96, 16)]
    assert [event["beta"] for event in curve] == pytest.approx(means)
    assert {event["beta"] for event in events(straight, "validation")} == {1.0}
    for event in curve:
        assert sum(event["kl_nats_by_channel"]) == pytest.approx(event["kl_nats"])


def test_held_out_losses_are_compared_once_beta_is_full(straight):
    best = {event["images_seen"]: event["best_images_seen"] for event in events(straight, "validation")}
    assert [best[seen] for seen in (16, 32, 48, 64)] == [16, 32, 48, 64]
    assert best[80] in (64, 80) and best[96] in (64, 80, 96)


def test_an_export_records_its_dropout_and_applies_none(straight):
    model = load_model(straight / "export")
    assert [level.dropout for level in model.spec.levels] == [0.2, 0.0]
    z = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    without = build_model(
        replace(model.spec, levels=[replace(level, dropout=0.0) for level in model.spec.levels])
    )
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.decode(z).mean, without.decode(z).mean)


def test_an_export_from_before_dropout_has_none(straight):
    config = straight / "export" / "config.json"
    text = json.loads(config.read_text())
    for level in text["spec"]["levels"]:
        del level["dropout"]
    config.write_text(json.dumps(text))
    assert [level.dropout for level in load_model(straight / "export").spec.levels] == [0.0, 0.0]
