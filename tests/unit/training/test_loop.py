"""The loop: what is saved when, what a continued run repeats, and what it refuses."""

import math
import signal
from dataclasses import replace

import pytest
import torch
from harness.one_weight import (
    BATCH,
    CONFIG,
    IMAGES,
    Regression,
    assert_equal,
    state_of,
    train,
    training,
)

from lediflow.engine.checkpoints import CheckpointFolder
from lediflow.engine.stop import StopReason
from lediflow.errors import UserError
from lediflow.training.bad_steps import BadStepsConfig
from lediflow.training.clock import ScheduleConfig


@pytest.fixture
def undisturbed(tmp_path):
    run = training(tmp_path / "undisturbed")
    assert train(run) is StopReason.NONE
    return run


def test_checkpoints_are_written_at_their_intervals_and_at_the_end(undisturbed):
    assert [int(path.name) for path in undisturbed.checkpoints.paths()] == [12, 24, 36, 40]


def test_curves_have_a_point_at_every_interval_averaged_over_its_images(undisturbed):
    points = undisturbed.tracker.of("train")
    assert [seen for seen, _ in points] == [8, 16, 24, 32, 40]
    means = [values["position"] for _, values in points]
    assert means == pytest.approx([3.5, 11.5, 19.5, 27.5, 35.5])  # of the 8 positions before each point


@pytest.mark.parametrize("position", [0, 13, 39], ids=["in the first step", "midway", "in the last step"])
def test_a_stopped_and_continued_run_is_the_undisturbed_run_bit_for_bit(tmp_path, undisturbed, position):
    stage = Regression(position, lambda: signal.raise_signal(signal.SIGTERM))
    stopped = training(tmp_path / "run", stage=stage)
    outcome = train(stopped)
    step_end = (position // BATCH + 1) * BATCH
    assert stopped.clock.images_seen == step_end  # the step at hand is finished, the next not begun
    assert outcome is (StopReason.NONE if step_end == IMAGES else StopReason.SIGNAL)
    continued = training(tmp_path / "run")
    assert train(continued) is StopReason.NONE
    assert_equal(state_of(continued), state_of(undisturbed))


def test_a_killed_run_continues_from_its_last_checkpoint_to_the_same_end(tmp_path, undisturbed):
    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(training(tmp_path / "run", stage=Regression(30, die)))
    continued = training(tmp_path / "run")
    train(continued)
    assert [seen for seen, _ in continued.tracker.of("resume")] == [24]
    assert_equal(state_of(continued), state_of(undisturbed))


def test_after_a_damaged_newest_checkpoint_a_run_continues_from_the_previous_one(tmp_path, undisturbed):
    train(training(tmp_path / "run"))
    for path in CheckpointFolder(tmp_path / "run").paths()[-2:]:
        next(path.glob("slice-*")).write_bytes(b"torn")
    continued = training(tmp_path / "run")
    train(continued)
    assert [seen for seen, _ in continued.tracker.of("resume")] == [24]
    assert_equal(state_of(continued), state_of(undisturbed))


def test_a_finished_run_continues_with_a_larger_number_of_images(tmp_path):
    longer = replace(CONFIG, images=60, schedule=ScheduleConfig(warmup_images=16))
    shorter = replace(longer, images=IMAGES)
    train(training(tmp_path / "run", config=shorter))
    continued, at_once = (
        training(tmp_path / "run", config=longer),
        training(tmp_path / "other", config=longer),
    )
    train(continued)
    train(at_once)
    assert_equal(state_of(continued), state_of(at_once))


def test_micro_batches_change_neither_data_nor_curve_points(tmp_path, undisturbed):
    parts = training(tmp_path / "parts", micro_batch=1)
    train(parts)
    for (seen, values), (seen_whole, whole) in zip(
        parts.tracker.of("train"), undisturbed.tracker.of("train"), strict=True
    ):
        assert seen == seen_whole
        assert values["loss"] == pytest.approx(whole["loss"], rel=1e-5)  # only the order of sums differs


def test_another_run_in_the_same_folder_is_refused_with_both_named(tmp_path):
    train(training(tmp_path / "run", identity={"seed": 0}))
    with pytest.raises(UserError, match=r"\(seed: 0, now 1\).*another run="):
        train(training(tmp_path / "run", identity={"seed": 1}))


def poisoned_weights(run):
    def poison():
        run.engine.weights.bias.data.fill_(torch.nan)

    return poison


class Stumbling(Regression):
    """Samples whose loss is no number, every time."""

    def __init__(self, positions):
        super().__init__()
        self.positions = positions

    def loss(self, module, batch, noise):
        found = super().loss(module, batch, noise)
        bad = torch.tensor([int(position) in self.positions for position in batch.ids])
        per_sample = torch.where(bad, torch.nan, found.per_sample)
        return found._replace(loss=found.loss * per_sample.mean() / per_sample.mean(), per_sample=per_sample)


def test_a_step_with_a_nonfinite_sample_is_skipped_and_the_sample_named(tmp_path, caplog):
    run = training(tmp_path / "run", stage=Stumbling({13, 14}))
    assert train(run) is StopReason.NONE
    assert run.engine.state().steps == IMAGES // BATCH - 1
    [(seen, values)] = run.tracker.of("bad_step")
    assert (seen, values["samples"]) == (16, ["13", "14"])
    assert "the step that ended at 16 images was left out: the loss of 13, 14 is not finite" in caplog.text


def test_too_many_bad_steps_in_a_row_restore_the_checkpoint_and_reach_the_same_end(tmp_path, undisturbed):
    config = replace(CONFIG, bad_steps=BadStepsConfig(in_a_row=3))
    run = training(tmp_path / "run", config=config)
    poison, run.stage.at = poisoned_weights(run), 18  # a memory error, say: it does not come again

    def once():
        run.stage.at = None
        poison()

    run.stage.event = once
    train(run)
    assert [seen for seen, _ in run.tracker.of("bad_step")] == [20, 24, 28]
    # at 24 the run was ill already: nothing was saved then
    assert [seen for seen, _ in run.tracker.of("resume")] == [12]
    *_, after = [values for seen, values in run.tracker.of("train") if seen == 16]
    assert math.isfinite(after["loss"])
    assert after["position"] == 13.5  # of the samples 12 to 15, and nothing of the lost attempt
    assert_equal(state_of(run), state_of(undisturbed))


def test_a_repeated_fault_ends_the_run(tmp_path):
    config = replace(CONFIG, bad_steps=BadStepsConfig(in_a_row=2))
    run = training(tmp_path / "run", config=config, stage=Stumbling(range(16, 40)))
    with pytest.raises(UserError, match=r"again after 3 returns .*lower train\.learning_rate"):
        train(run)
    assert [seen for seen, _ in run.tracker.of("resume")] == [12, 12, 12]
    assert [int(path.name) for path in run.checkpoints.paths()] == [12]


def test_a_fault_before_anything_was_saved_ends_the_run_at_once(tmp_path):
    run = training(
        tmp_path / "run",
        config=replace(CONFIG, bad_steps=BadStepsConfig(in_a_row=2)),
        stage=Stumbling(range(40)),
    )
    with pytest.raises(UserError, match="before anything was saved"):
        train(run)


def test_a_write_error_is_explained_after_some_attempts(tmp_path):
    (tmp_path / "file").touch()
    run = training(tmp_path / "file" / "checkpoints")
    pauses = []
    run.saving.sleep = pauses.append
    with pytest.raises(
        UserError, match=r"at 40 images could not be saved in 5 tries \(Not a directory.*no valid checkpoint"
    ):
        train(run)
    assert len(pauses) == 4
    assert len(run.tracker.of("checkpoint_failed")) >= 5


def test_a_temporarily_full_disk_does_not_interrupt_training(tmp_path, undisturbed):
    """The save at 12 fails and is retried after the pause; the result equals an uninterrupted run's."""

    def make_room():
        run.saving.writer.wait_slice()
        (tmp_path / "run").unlink()

    run = training(tmp_path / "run", stage=Regression(20, make_room))
    (tmp_path / "run").touch()
    run.saving.clock = lambda: 100.0 * run.clock.images_seen  # every step is late enough for another try
    train(run)
    failed = [seen for seen, _ in run.tracker.of("checkpoint_failed")]
    saved = [seen for seen, _ in run.tracker.of("checkpoint")]
    assert failed[0] == 12
    assert max(failed) < min(saved)
    assert saved[-1] == 40
    assert_equal(state_of(run), state_of(undisturbed))


def test_a_stop_file_stops_the_run_at_the_next_step_with_its_state_saved(tmp_path):
    run = training(tmp_path / "run", stage=Regression(13, lambda: (tmp_path / "stop").touch()))
    run.stop.file, run.stop.clock = tmp_path / "stop", lambda: 10.0 * run.clock.images_seen
    assert train(run) is StopReason.STOP_FILE
    assert run.clock.images_seen == 16
    assert [int(path.name) for path in run.checkpoints.paths()][-1] == 16
