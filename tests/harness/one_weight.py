"""A training of one weight on one number, with every real part of the loop: steps take microseconds."""

import torch
from torch import nn

from lediflow.data.streams.batch import Batch
from lediflow.engine.checkpoints import CheckpointConfig, CheckpointFolder, CheckpointWriter
from lediflow.engine.ema import EMAConfig
from lediflow.engine.hang_detection import Limits
from lediflow.engine.local import LocalEngine
from lediflow.engine.protocol import EngineConfig
from lediflow.engine.ranks import Ranks
from lediflow.engine.stop import StopRequest
from lediflow.engine.watchdog import Watchdog
from lediflow.flow.noise import SampleNoise
from lediflow.stages.protocol import stage_loss
from lediflow.training.clock import Clock, ScheduleConfig
from lediflow.training.config import TrainingConfig
from lediflow.training.held_out import HeldOut
from lediflow.training.held_out_monitor import HeldOutMonitor
from lediflow.training.loop import train as train_on
from lediflow.training.pictures.monitor import TrainingPictures
from lediflow.training.recording import Recorder
from lediflow.training.resume import begin, find_newest
from lediflow.training.saving import Saving
from lediflow.training.state import Training

BATCH, IMAGES = 4, 40
CONFIG = TrainingConfig(
    images=IMAGES,
    global_batch=BATCH,
    schedule=ScheduleConfig(warmup_images=16, decay_images=16),
    ema=EMAConfig(half_life_images=8, sigma_rels=[0.1]),
    checkpoint=CheckpointConfig(every_images=12, keep_last=9, snapshot_every_images=0),
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
        return Batch(
            ids=ids, keys=[str(int(i)) for i in ids], images=ids[:, None].float() / IMAGES, labels=None
        )

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


def training(
    folder,
    *,
    stage=None,
    micro_batch=0,
    config=CONFIG,
    identity=None,
    stop=None,
    tracker=None,
    validation=None,
    history=None,
    **more,
):
    torch.manual_seed(0)
    module = nn.Linear(1, 1)
    engine = LocalEngine(
        module, [{"params": [*module.parameters()], "lr": 0.05, "weight_decay": 0.0}],
        EngineConfig(device="cpu", micro_batch=micro_batch), Ranks(), global_batch=BATCH, betas=(0.9, 0.99),
        averages=("ema", "ema_0.100", *["best"] * (config.export == "best")),
    )  # fmt: skip
    clock, tracker = Clock(config.images, BATCH), tracker or Remembering()
    checkpoints = CheckpointFolder(folder, config.checkpoint)
    stop = stop or StopRequest()
    return Training(
        engine=engine,
        stage=stage or Regression(),
        stream=Counting(engine.micro_batch),
        noise=SampleNoise(0),
        clock=clock,
        tracker=tracker,
        saving=Saving(CheckpointWriter(checkpoints, Ranks(), "session"), engine, tracker),
        recorder=Recorder(engine, clock, tracker),
        stop=stop,
        watchdog=Watchdog(folder, Ranks(), Limits(), lambda event, **values: None, session="session"),
        config=config,
        identity=identity or {"seed": 0},
        history="session",
        held_out=HeldOutMonitor(engine, tracker, config, validation, history or HeldOut(), **more),
        pictures=TrainingPictures(engine, tracker, config.pictures, config.log_every_images),
    )


def train(run):
    """Continue from the newest checkpoint of the folder, like the command."""
    begin(run, find_newest(run))
    try:
        with run.stop:
            return train_on(run)
    finally:
        run.saving.leave()


def state_of(run):
    return run.engine.state().tensors


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
