"""Recorded passes: the same weights as without a recording, from inputs that are written before each repetition."""

import dataclasses
import logging

import pytest
import torch
from harness.one_weight import BATCH, assert_equal, state_of, train, training
from torch.utils._pytree import tree_map_only

from lediflow.config.building.inputs import open_inputs
from lediflow.config.building.run import build_run
from lediflow.config.composition.checks import typed
from lediflow.config.composition.compose import composed
from lediflow.data.streams.batch import Batch
from lediflow.engine import local
from lediflow.engine.lease import NoLease
from lediflow.engine.passes import WARM_UP, Passes
from lediflow.engine.ranks import find_ranks
from lediflow.engine.stop import StopRequest
from lediflow.training import loop


class Repeated:
    """A recording on a CPU: it repeats the function into the tensors of its first results, as a CUDA graph would."""

    made = 0

    def __init__(self, function):
        Repeated.made += 1
        self.function, self.results = function, None

    def __call__(self):
        found = self.function()
        if self.results is None:
            self.results = found
        kept = []
        tree_map_only(torch.Tensor, kept.append, self.results)
        new = []
        tree_map_only(torch.Tensor, new.append, found)
        for old, value in zip(kept, new, strict=True):
            old.copy_(value)
        return self.results


class Overwriting(Repeated):
    """A recording of passes that begin without gradients: each call writes the same gradient tensors."""

    weights = ()

    def __call__(self):
        kept = [weight.grad for weight in self.weights]
        for weight in self.weights:
            weight.grad = None
        results = super().__call__()
        for weight, grad in zip(self.weights, kept, strict=True):
            if grad is not None:
                grad.copy_(weight.grad)
                weight.grad = grad
        return results


def recorded_training(folder, monkeypatch, micro_batch=0, **options):
    run = training(folder, micro_batch=micro_batch, **options)
    run.engine.config = dataclasses.replace(run.engine.config, cuda_graphs=True)
    run.passes = Passes(run.engine, run.passes.loss_of)
    is_accumulating = run.engine.accumulation > 1
    monkeypatch.setattr(local, "Recording", Repeated if is_accumulating else Overwriting)
    monkeypatch.setattr(Overwriting, "weights", tuple(run.engine.trained.values()))
    monkeypatch.setattr(Repeated, "made", 0)
    return run


@pytest.mark.parametrize("micro_batch", [BATCH, 2])
def test_recorded_passes_train_the_weights_of_direct_ones(tmp_path, monkeypatch, micro_batch):
    direct = training(tmp_path / "direct", micro_batch=micro_batch)
    train(direct)
    run = recorded_training(tmp_path / "recorded", monkeypatch, micro_batch)
    train(run)
    assert Repeated.made == 1
    assert_equal(state_of(run), state_of(direct))
    losses = [[values["loss"] for _, values in each.tracker.of("train")] for each in (run, direct)]
    assert losses[0] == losses[1]


def test_what_cannot_be_recorded_runs_directly_with_one_warning(tmp_path, monkeypatch, caplog):
    def refuse(function):
        function()  # a recording that fails may have run a part of the passes
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    direct = training(tmp_path / "direct")
    train(direct)
    run = recorded_training(tmp_path / "recorded", monkeypatch)
    monkeypatch.setattr(local, "Recording", refuse)
    with caplog.at_level(logging.WARNING):
        train(run)
    (warning,) = [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()]
    assert "(operation not permitted when stream is capturing)" in warning
    assert "engine.cuda_graphs=false" in warning
    assert_equal(state_of(run), state_of(direct))


def test_the_losses_of_a_step_outlive_the_next_one(tmp_path, monkeypatch):
    run = recorded_training(tmp_path, monkeypatch)
    for _ in range(WARM_UP):
        loop.take_step(run)
    first = loop.take_step(run)
    before = first.losses[0].clone()
    loop.take_step(run)
    assert torch.equal(first.losses[0], before)


def test_a_batch_of_another_shape_is_refused(tmp_path, monkeypatch):
    run = recorded_training(tmp_path, monkeypatch)
    for _ in range(WARM_UP + 1):
        loop.take_step(run)
    one = Batch(ids=torch.zeros(1).long(), keys=["0"], images=torch.zeros(1, 1), labels=None)
    with pytest.raises(RuntimeError, match=r"ids \(1,\), images \(1, 1\) came after .* ids \(4,\)"):
        run.passes(one)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stage", ["auxiliary", "flow"])
def test_cuda_graphs_train_the_weights_of_eager_steps_on_a_gpu(tmp_path, stage):
    """Fifty steps with accumulation, clipping, dropout and one loss that is NaN."""
    states = [gpu_state(tmp_path, stage, is_recorded) for is_recorded in (False, True)]
    eager, recorded = states
    assert eager.keys() == recorded.keys()
    for name, tensor in eager.items():
        torch.testing.assert_close(recorded[name], tensor, rtol=1e-4, atol=1e-6)


def gpu_state(folder, stage, is_recorded):
    """The state after 50 steps of 4 micro-batches."""
    run_folder = folder / f"{stage}_{is_recorded}"
    options = [
        "experiment=smoke", "synthetic_images=256", f"data.path={folder}/shards", f"stage={stage}", f"run={run_folder}",
        *(["prior=gaussian"] if stage == "flow" else []), "train.images=1600", "train.global_batch=32",
        "engine.micro_batch=8", f"engine.cuda_graphs={str(is_recorded).lower()}", "engine.compile=false",
        "engine.gradient_clip=0.1",
        "model.auxiliary.levels.0.dropout=0.1", "model.velocity.levels.0.dropout=0.1",
    ]  # fmt: skip
    command = typed(composed("train", options))
    inputs = open_inputs(command, find_ranks())
    with StopRequest() as stop:
        run = build_run(command, inputs, find_ranks(), stop, NoLease())
        poison(run.stage, at=801)
        steps = [loop.take_step(run) for _ in range(50)]
        assert (run.passes.recorded is not None) is is_recorded
        assert [number for number, step in enumerate(steps) if step.is_bad] == [801 // 32]
        state = run.engine.state()
        state.ready()
        found = {name: tensor.clone() for name, tensor in state.tensors.items()}
        run.stream.close()
        run.tracker.close()
        run.engine.close()
    return found


def poison(stage, at):
    """Make the loss of the sample at a position of the run NaN."""
    loss_of = stage.loss

    def poisoned(module, batch, noise):
        result = loss_of(module, batch, noise)
        return result._replace(loss=torch.where((batch.ids == at).any(), torch.nan, 1.0) * result.loss)

    stage.loss = poisoned
