"""The best validation: its averaged weights are exported, patience counts from it, kills change nothing."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from harness.one_weight import CONFIG, Regression, train, training

from lediflow.engine.checkpoints import Checkpoint, CheckpointConfig
from lediflow.engine.stop import StopReason
from lediflow.errors import UserError
from lediflow.tracking.event_log import TURNED, JsonlTracker, has_event, read_events, standing_events
from lediflow.training.bad_steps import BadStepsConfig
from lediflow.training.clock import ScheduleConfig
from lediflow.training.exporting import export_weights
from lediflow.training.held_out import HeldOut

EVERY = 8
BEST = replace(
    CONFIG,
    images=160,
    export="best",
    schedule=ScheduleConfig(warmup_images=16),  # no decay: a shorter run takes the same steps
    checkpoint=CheckpointConfig(every_images=12, keep_last=20, snapshot_every_images=0),
)
EXAMPLES = torch.linspace(-1, 1, 32)[:, None]


class PassedBy:
    """Held-out samples whose line the training crosses on its way to its own: the loss falls, then rises."""

    every_images = EVERY

    def measure(self, engine, stage):
        return {"loss": float(self.losses(engine, stage).mean()), "seconds": 0.0}

    @torch.no_grad()
    def losses(self, engine, stage):
        off = engine.module(EXAMPLES) - (0.3 * EXAMPLES + 0.5)
        return off.square().squeeze(1).double().numpy()


def run_in(folder, config=BEST, **options):
    """A training whose events lie in a file, as the command's do."""
    folder.mkdir(exist_ok=True)
    log = folder / "events.jsonl"
    return training(
        folder / "checkpoints", config=config, validation=PassedBy(), tracker=JsonlTracker(log),
        is_logged=partial(has_event, log), **options,
    )  # fmt: skip


def exported(run, **options):
    """(bytes of the weights, facts) of what the command would export."""
    folder = run.checkpoints.folder.parent / "export"
    facts = export_weights(Checkpoint(run.checkpoints.paths()[-1]), folder, **options)
    return (folder / "model.safetensors").read_bytes(), facts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("runs") / "undisturbed")
    assert train(run) is StopReason.NONE
    return run


def log_of(run, read=standing_events):
    return read(run.checkpoints.folder.parent / "events.jsonl")


def validations(run):
    return [event for event in log_of(run) if event["event"] == "validation"]


def dies_at(position):
    def die():
        raise KeyboardInterrupt

    return Regression(position, die)


def test_the_exported_weights_are_those_of_a_run_that_ended_at_the_best_validation(tmp_path, undisturbed):
    weights, facts = exported(undisturbed)
    best = min(validations(undisturbed), key=lambda event: event["averaged_loss"])
    assert EVERY < best["images_seen"] < BEST.images - 24
    shorter = run_in(tmp_path / "shorter", replace(BEST, images=best["images_seen"], export="last"))
    assert (facts["export"], facts["images_seen"], facts["trained_images"], facts["ended"]) == (
        "best", best["images_seen"], BEST.images, "images",
    )  # fmt: skip
    assert facts["held_out_loss"] == best["averaged_loss"]
    train(shorter)
    assert exported(shorter)[0] == weights


def test_the_held_out_loss_recorded_is_that_of_the_averaged_weights(undisturbed):
    last = validations(undisturbed)[-1]
    run = undisturbed
    weight, bias = (run.engine.averages.tensors["ema"][place].item() for place in (0, 1))
    x = EXAMPLES.double().numpy()
    expected = np.mean((weight * x + bias - 0.3 * x - 0.5) ** 2)
    assert last["averaged_loss"] == pytest.approx(expected, rel=1e-5)  # float32 against float64
    assert last["loss"] != pytest.approx(expected, rel=1e-3)


def test_validation_changes_no_weight(tmp_path, undisturbed):
    alone = training(tmp_path / "alone", config=BEST)
    train(alone)
    found, expected = (run.engine.state().tensors for run in (undisturbed, alone))
    names = [name for name in expected if not name.startswith("best/")]
    assert all(torch.equal(found[name], expected[name]) for name in names)


@pytest.mark.parametrize("position", [9, 61, 111, 114, 159])
def test_a_killed_run_exports_the_same_file_and_reports_the_turned_loss_once(tmp_path, undisturbed, position):
    with pytest.raises(KeyboardInterrupt):
        train(run_in(tmp_path / "run", stage=dies_at(position)))
    run = run_in(tmp_path / "run")
    assert train(run) is StopReason.NONE
    assert exported(run) == exported(undisturbed)
    assert run.held_out.history.state() == undisturbed.held_out.history.state()
    for read in (read_events, standing_events):
        assert [event["images_seen"] for event in log_of(run, read) if event["event"] == TURNED] == [
            undisturbed.held_out.history.turn.images_seen
        ]


def test_a_saved_but_unreported_turn_is_reported_by_the_next_start(tmp_path, monkeypatch, undisturbed):
    run = run_in(tmp_path / "run")

    def die(event, images_seen, **values):
        if event == TURNED:
            raise KeyboardInterrupt
        record(event, images_seen, **values)

    record = run.tracker.record
    monkeypatch.setattr(run.tracker, "record", die)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    continued = run_in(tmp_path / "run")
    train(continued)
    (said,) = [event for event in log_of(continued, read_events) if event["event"] == TURNED]
    assert said["images_seen"] == undisturbed.held_out.history.turn.images_seen


def test_the_warning_names_the_lowest_place_and_what_to_do(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(run_in(tmp_path / "run", replace(BEST, export="last")))
    (text,) = [record.getMessage() for record in caplog.records if "lowest" in record.getMessage()]
    assert "use train.export=best, train.patience_images=..., dropout, augmentation, or more pictures" in text
    assert " images and is +" in text


def test_best_weights_after_the_restored_checkpoint_are_discarded(tmp_path, undisturbed):
    first = run_in(tmp_path / "run")
    train(first)
    early = [path for path in first.checkpoints.paths() if int(path.name) > 12]
    for path in early:
        next(path.glob("slice-*")).write_bytes(b"torn")
    run = run_in(tmp_path / "run")
    found = Checkpoint(run.checkpoints.path_at(12))
    assert found.progress["held_out"]["best"]["images_seen"] == 8
    train(run)
    assert exported(run) == exported(undisturbed)


def test_returning_to_a_checkpoint_restores_its_best_weights(tmp_path, undisturbed):
    class Stumbling(Regression):
        """Samples from 28 on are poisoned, until the run has gone back."""

        def loss(self, module, batch, noise):
            result = super().loss(module, batch, noise)
            is_bad = int(batch.ids[0]) >= 28 and not self.event()
            return result._replace(loss=result.loss * float("nan")) if is_bad else result

    run = run_in(tmp_path / "run", replace(BEST, bad_steps=BadStepsConfig(in_a_row=3)))
    run.stage = Stumbling(event=lambda: run.bad_steps.returns > 0)
    train(run)
    assert run.bad_steps.returns == 1
    assert run.held_out.history.state() == undisturbed.held_out.history.state()
    assert exported(run) == exported(undisturbed)


class TestPatience:
    CONFIG = replace(BEST, patience_images=64)

    @pytest.fixture(scope="class")
    def patient(self, tmp_path_factory):
        run = run_in(tmp_path_factory.mktemp("runs") / "patient", self.CONFIG)
        assert train(run) is StopReason.NONE
        return run

    def test_ends_the_run_that_many_images_after_the_best_validation(self, patient, undisturbed):
        weights, facts = exported(patient)
        assert patient.clock.images_seen == facts["best_images_seen"] + 64
        assert (facts["ended"], facts["trained_images"]) == ("patience", patient.clock.images_seen)
        assert weights == exported(undisturbed)[0]

    @pytest.mark.parametrize("position", [20, 117])
    def test_at_the_same_place_after_a_kill(self, tmp_path, patient, position):
        with pytest.raises(KeyboardInterrupt):
            train(run_in(tmp_path / "run", self.CONFIG, stage=dies_at(position)))
        run = run_in(tmp_path / "run", self.CONFIG)
        train(run)
        assert exported(run) == exported(patient)

    def test_a_run_that_is_out_of_patience_takes_no_further_step(self, tmp_path, patient):
        for _ in range(2):
            run = run_in(tmp_path / "run", self.CONFIG)
            train(run)
        assert run.clock.images_seen == patient.clock.images_seen

    def test_with_more_patience_the_run_continues_like_an_uninterrupted_one(self, tmp_path, undisturbed):
        train(run_in(tmp_path / "run", self.CONFIG))
        run = run_in(tmp_path / "run", replace(self.CONFIG, patience_images=None))
        train(run)
        assert exported(run) == exported(undisturbed)


def test_export_best_in_a_continued_run_considers_validations_from_then_on(tmp_path, caplog):
    train(run_in(tmp_path / "run", replace(BEST, images=60, export="last")))
    run = run_in(tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        train(run)
    assert (
        "starts again at 60 images: the checkpoint has no best weights, since the run was not" in caplog.text
    )
    assert exported(run)[1]["images_seen"] > 60


def test_other_held_out_samples_are_compared_with_nothing(tmp_path, caplog):
    train(run_in(tmp_path / "run", replace(BEST, images=60), history=HeldOut("some")))
    run = run_in(tmp_path / "run", history=HeldOut("others"))
    with caplog.at_level(logging.WARNING):
        train(run)
    assert "starts again at 60 images: the held-out samples have changed" in caplog.text
    assert exported(run)[1]["images_seen"] > 60


def test_best_weights_that_no_checkpoint_has_are_refused(tmp_path):
    run = run_in(tmp_path / "run", replace(BEST, export="last"))
    train(run)
    with pytest.raises(UserError, match=r"was not trained with train\.export=best"):
        exported(run, which="best")
