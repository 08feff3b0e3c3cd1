"""The loss on held-out samples: the same on any ranks, of the samples that training never sees."""

import logging
from unittest import mock

import numpy as np
import pytest
import torch
from harness.thread_ranks import on_thread_ranks
from torch import nn

from lediflow.data.shards.reader import ShardReader
from lediflow.data.streams.batch import each_once
from lediflow.data.streams.config import DataConfig
from lediflow.data.streams.order import samples_of
from lediflow.data.synthetic import make_synthetic_shards
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.stages.flow import FlowStage, FlowStageConfig
from lediflow.training import validation
from lediflow.training.config import TrainingConfig
from lediflow.training.held_out_monitor import HeldOutMonitor
from lediflow.training.validation import NOISE_SEED, ValidationConfig, build_validation

CPU, HALF = torch.device("cpu"), 0.5
STAGE = FlowStage(FlowStageConfig(), None)


class Velocity(nn.Module):
    """Remembers how often and in which mode it was called."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.calls = []

    def forward(self, x, t, z=None, labels=None, augmentation=None):
        self.calls.append((self.training, torch.is_grad_enabled(), len(x)))
        return self.scale * x


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_synthetic_shards(folder, 50, 16, 1)
    return ShardReader.open(folder)


def held_out(reader, fraction=HALF):
    return samples_of("heldout", reader.index.table["key"], fraction)


def validation_of(reader, fraction=HALF, **config):
    return build_validation(ValidationConfig(**config), DataConfig(held_out_fraction=fraction), reader, CPU)


def measured(reader, world_size=1, micro_batch=4, **config):
    """Each rank's values and its module."""

    def work(engine):
        engine.module = Velocity()
        return validation_of(reader, **config).measure(engine, STAGE), engine.module

    return on_thread_ranks(world_size, work, micro_batch=micro_batch)


def assert_bins(found, expected):
    """The same means, and none where nothing lay in a bin."""
    known = [[float("nan") if value is None else value for value in values] for values in (found, expected)]
    assert known[0] == pytest.approx(known[1], rel=1e-6, nan_ok=True)


def test_it_is_the_mean_loss_of_the_held_out_samples_with_noise_of_their_own(reader):
    [(values, _)] = measured(reader)
    (everything,) = each_once(reader, held_out(reader), 99, seed=NOISE_SEED)
    with torch.no_grad():
        expected = STAGE.loss(Velocity(), everything, SampleNoise(NOISE_SEED))
    assert values["loss"] == pytest.approx(expected.loss.item(), rel=1e-6)  # the order of sums
    assert values["samples"] == len(held_out(reader))
    sums, counts = expected.bins["loss_by_time"]
    assert_bins(values["loss_by_time"], (sums / counts).tolist())


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 3), (2, 4), (3, 2), (3, 16)])
def test_ranks_and_micro_batches_change_nothing(reader, world_size, micro_batch):
    [(alone, _)] = measured(reader, micro_batch=99)
    for values, _ in measured(reader, world_size, micro_batch):
        for name in ("loss", "velocity_mse"):
            assert values[name] == pytest.approx(alone[name], rel=1e-6)  # the order of sums
        assert_bins(values["loss_by_time"], alone["loss_by_time"])


@pytest.mark.parametrize(("samples", "calls"), [(1, 1), (4, 1), (5, 1), (7, 2)])
def test_every_rank_calls_the_model_equally_often_even_without_samples(reader, samples, calls):
    [(alone, _)] = measured(reader, samples=samples)
    for values, module in measured(reader, 3, 2, samples=samples):
        assert len(module.calls) == calls
        assert values["loss"] == pytest.approx(alone["loss"], rel=1e-6)


@pytest.mark.parametrize(("limit", "reads"), [(None, 1), (0, 4)], ids=["kept", "too large to keep"])
def test_repeated_validations_read_the_samples_once_and_find_the_same(reader, monkeypatch, limit, reads):
    read = []
    stored = ShardReader.stored
    monkeypatch.setattr(
        ShardReader, "stored", lambda self, samples, views=None: read.extend(samples) or stored(self, samples)
    )
    if limit is not None:
        monkeypatch.setattr(validation, "KEPT_BYTES", limit)

    def work(engine):
        engine.module = Velocity()
        of_run = validation_of(reader)
        pairs = [(of_run.measure(engine, STAGE)["loss"], of_run.losses(engine, STAGE)) for _ in range(2)]
        return of_run.samples, pairs

    [(samples, [(loss, losses), (loss_again, losses_again)])] = on_thread_ranks(1, work, micro_batch=4)
    assert loss == loss_again
    assert np.array_equal(losses, losses_again)
    assert sorted(read) == sorted([*samples] * reads)


def test_training_is_unchanged(reader):
    state = torch.get_rng_state()
    [(_, module)] = measured(reader)
    assert all(not training and not has_grad for training, has_grad, _ in module.calls)
    assert module.training
    assert module.scale.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_validation_samples_are_held_out_and_spread_over_the_set(reader):
    samples = validation_of(reader, samples=5).samples
    assert set(samples) <= set(held_out(reader))
    assert len(set(samples)) == 5
    assert np.diff(samples).max() < 20  # of 50 in the set


def test_it_runs_by_default_where_samples_are_held_out_and_only_there(reader):
    assert validation_of(reader).every_images > 0
    assert validation_of(reader, fraction=0.0) is None
    assert validation_of(reader, every_images=0) is None


def test_validation_without_held_out_samples_is_refused_with_both_options(reader):
    message = (
        r"train\.validation\.every_images=64 .*data\.held_out_fraction=0\.0 holds out none of the 50 samples"
        r".*raise data\.held_out_fraction, or set train\.validation\.every_images=0"
    )
    with pytest.raises(UserError, match=message):
        validation_of(reader, fraction=0.0, every_images=64)


def test_a_fraction_that_holds_out_no_sample_is_reported(reader, caplog):
    with caplog.at_level(logging.WARNING):
        assert validation_of(reader, fraction=1e-6) is None
    assert "no validation: data.held_out_fraction=1e-06 holds out none of the 50 samples" in caplog.text


def test_held_out_samples_whose_loss_is_not_finite_are_named(reader, caplog):
    """In the log of rank 0, once."""

    def work(engine):
        engine.module = Velocity()
        engine.module.scale.data.fill_(float("nan"))
        engine.keep_best = lambda: None
        found = validation_of(reader, samples=3)
        HeldOutMonitor(engine, mock.Mock(), TrainingConfig(images=1), found).validate(STAGE, 96)
        return reader.keys(found.samples)

    (names, _) = on_thread_ranks(2, work, micro_batch=2)
    message = f"validation at 96 images: the loss of {', '.join(names)} is not finite"
    assert [record.message for record in caplog.records] == [message]


def test_a_held_out_sample_that_cannot_be_read_is_replaced_by_the_next(tmp_path, reader):
    folder = tmp_path / "shards"
    make_synthetic_shards(folder, 50, 16, 1)
    broken = int(held_out(reader)[0])
    index = ShardReader.open(folder).index
    row, shard = index.table[broken], index.shards[int(index.shard_of(np.array([broken]))[0])]
    with (folder / shard.name).open("r+b") as file:
        file.seek(int(row["offset"]))
        file.write(b"\x00" * int(row["length"]))
    [(values, _)] = measured(ShardReader.open(folder))
    (replaced,) = each_once(
        reader, held_out(reader)[[1, *range(1, len(held_out(reader)))]], 99, seed=NOISE_SEED
    )
    expected = STAGE.loss(Velocity(), replaced, SampleNoise(NOISE_SEED)).loss.item()
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
