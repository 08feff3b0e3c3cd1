"""The loop: what is saved when, what a continued run repeats, and what it refuses."""

import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from lediflow.data.streams.batch import Batch
from lediflow.engine.checkpoint import STATE, CheckpointConfig, CheckpointFolder
from lediflow.engine.ema import EMAConfig
from lediflow.engine.local import LocalEngine
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.nn.neighborhood import check as neighborhood_check
from lediflow.stages.protocol import stage_loss
from lediflow.training.clock import Clock
from lediflow.training.loop import Outcome, Training, TrainingConfig, resume
from lediflow.training.loop import train as train_on
from lediflow.training.schedules import ScheduleConfig

BATCH, IMAGES = 4, 40
CONFIG = TrainingConfig(
    images=IMAGES,
    global_batch=BATCH,
    schedule=ScheduleConfig(warmup_images=16, decay_images=16),
    ema=EMAConfig(half_life_images=8),
    checkpoint=CheckpointConfig(every_images=12, keep_last=9),
    log_every_images=8,
)


class Counting:
    """A stream whose samples are functions of their position."""

    def __init__(self, micro_batch):
        self.position, self.micro_batch = 0, micro_batch
        self.quarantine = ()  # no corrupt samples

    def next_batch(self):
        ids = torch.arange(self.position, self.position + self.micro_batch)
        self.position += self.micro_batch
        return Batch(ids=ids, keys=[str(i) for i in ids], images=ids[:, None].float() / IMAGES, labels=None)

    def state(self):
        return {"position": self.position}

    def load(self, state):
        self.position = state["position"]


class Regression:
    """A stage that draws noise for its samples, and may do something before a certain one."""

    name = "regression"

    def __init__(self, at=None, event=None):
        self.at, self.event = at, event

    def loss(self, module, batch, noise):
        if self.at is not None and self.at in batch.ids:
            self.event()
        target = batch.images + noise.normal(batch.ids, "target", (1,))
        per_sample = (module(batch.images) - target).square().mean(1)
        return stage_loss(per_sample, {"position": batch.ids.float().mean()}, {})


class Remembering:
    """A tracker that keeps what it hears."""

    def __init__(self):
        self.events = []

    def record(self, event, images_seen, **values):
        self.events.append((event, images_seen, values))

    def close(self):
        """Nothing to finish."""

    def of(self, kind):
        return [(seen, values) for event, seen, values in self.events if event == kind]


def training(folder, *, stage=None, micro_batch=0, config=CONFIG, identity=None):
    torch.manual_seed(0)
    module = nn.Linear(1, 1)
    engine = LocalEngine(
        module, [{"params": [*module.parameters()], "lr": 0.05, "weight_decay": 0.0}],
        EngineConfig(device="cpu", micro_batch=micro_batch), Ranks(), global_batch=BATCH, betas=(0.9, 0.99),
    )  # fmt: skip
    return Training(
        engine=engine,
        stage=stage or Regression(),
        stream=Counting(engine.micro_batch),
        noise=SampleNoise(0),
        clock=Clock(config.images, BATCH),
        tracker=Remembering(),
        checkpoints=CheckpointFolder(folder, config.checkpoint.keep_last),
        config=config,
        identity=identity or {"seed": 0},
    )


def train(run):
    """What the command does: continue where the folder stands."""
    resume(run)
    return train_on(run)


def state_of(run):
    return run.engine.state().tensors


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def undisturbed(tmp_path):
    run = training(tmp_path / "undisturbed")
    assert train(run) is Outcome.FINISHED
    return run


def test_checkpoints_stand_at_their_intervals_and_at_the_end(undisturbed):
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
    assert outcome is (Outcome.FINISHED if step_end == IMAGES else Outcome.STOPPED)
    continued = training(tmp_path / "run")
    assert train(continued) is Outcome.FINISHED
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


def test_a_broken_newest_checkpoint_costs_only_the_images_since_the_one_before(tmp_path, undisturbed):
    train(training(tmp_path / "run"))
    for path in CheckpointFolder(tmp_path / "run").paths()[-2:]:
        (path / STATE).write_bytes(b"torn")
    continued = training(tmp_path / "run")
    train(continued)
    assert [seen for seen, _ in continued.tracker.of("resume")] == [24]
    assert_equal(state_of(continued), state_of(undisturbed))


def test_a_finished_run_asked_for_more_images_goes_on(tmp_path):
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


def test_attention_is_looked_at_every_so_many_steps_and_nothing_changes(tmp_path, undisturbed):
    class Looking(Regression):
        looked_at = 0

        def loss(self, module, batch, noise):
            self.looked_at += neighborhood_check.is_on
            return super().loss(module, batch, noise)

    config = replace(CONFIG, check_attention_every_steps=4)  # of ten steps
    run = training(tmp_path / "run", stage=Looking(), config=config)
    assert train(run) is Outcome.FINISHED
    assert run.stage.looked_at == 2
    assert_equal(state_of(run), state_of(undisturbed))


def test_another_run_in_the_same_folder_is_refused_with_both_named(tmp_path):
    train(training(tmp_path / "run", identity={"seed": 0}))
    with pytest.raises(UserError, match=r"\(seed: 0, now 1\).*another run="):
        train(training(tmp_path / "run", identity={"seed": 1}))


def test_a_gradient_that_is_no_number_ends_the_run_before_anything_is_saved(tmp_path):
    def poison():
        run.engine.weights.bias.data.fill_(torch.nan)

    run = training(tmp_path / "run", stage=Regression(13, poison))
    with pytest.raises(
        UserError, match=r"no longer a number \(norm nan\) after 16 images; lower train\.learning_rate"
    ):
        train(run)
    assert [int(path.name) for path in run.checkpoints.paths()] == [12]
    assert all(tensor.isfinite().all() for tensor in run.checkpoints.newest().engine.tensors.values())


def test_a_disk_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*a file stands where a folder is needed"):
        train(training(tmp_path / "file" / "checkpoints"))
