"""The training loop, as the algorithm box would have it."""

from __future__ import annotations

import enum
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lediflow.data.files import disk_errors_explained
from lediflow.data.streams.batch import Batch
from lediflow.data.streams.stream import SampleStream
from lediflow.engine.checkpoint import Checkpoint, CheckpointConfig, CheckpointFolder
from lediflow.engine.ema import EMAConfig, decay_for
from lediflow.engine.preemption import StopRequest
from lediflow.engine.protocol import Engine
from lediflow.errors import UserError
from lediflow.flow.noise import SampleNoise
from lediflow.nn.neighborhood import checked_routes
from lediflow.stages.protocol import Stage
from lediflow.tracking.protocol import Tracker
from lediflow.training.clock import Clock
from lediflow.training.identity import differences
from lediflow.training.schedules import ScheduleConfig, learning_rate_factor

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TrainingConfig:
    images: int = 1_000_000  # how many images the run sees, repeats counted; the clock of everything else
    global_batch: int = 64  # samples per optimizer step over all ranks; changing it changes the training
    learning_rate: float = 3e-4  # AdamW's, at its height; the mapping network takes a third of it
    weight_decay: float = 1e-2  # shrinks the maps between tokens; norms, scales and embeddings are spared
    beta1: float = 0.9  # memory of the gradient's direction
    beta2: float = 0.99  # memory of the gradient's size; longer suits larger batches
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every_images: int = 4_096  # averages over this many images become one point of a curve
    check_attention_every_steps: int = (
        0  # looks for values that are no numbers, for one forward pass; 0: never
    )


class Outcome(enum.Enum):
    FINISHED = "finished"
    STOPPED = "stopped"  # state saved; the same command continues


@dataclass
class Training:
    """Everything one run needs, built; `resume(self)`, then `train(self)` run it."""

    engine: Engine
    stage: Stage
    stream: SampleStream
    noise: SampleNoise
    clock: Clock
    tracker: Tracker
    checkpoints: CheckpointFolder
    config: TrainingConfig
    identity: dict[str, Any]  # what a resumed run must share: seed, stage, parent


def train(run: Training) -> Outcome:
    """Train from where the run stands (see `resume`) to the end of the clock, or until asked to stop."""
    engine, clock, config = run.engine, run.clock, run.config
    window = Window(run)
    with StopRequest() as stop:
        while not clock.is_finished:
            for _ in range(engine.accumulation):
                batch = window.waited(run.stream.next_batch)
                loss, metrics, *_ = run.stage.loss(engine.module, batch, run.noise)
                engine.backward(loss)
                window.add(metrics)
            clock.advance()
            factor = learning_rate_factor(config.schedule, clock.images_seen, clock.images)
            norm = engine.step(factor, decay_for(config.ema, clock.images_seen, clock.global_batch))
            check_gradient(run, norm)
            if clock.is_due(config.check_attention_every_steps * config.global_batch):
                check_attention(run, batch)
            if clock.is_due(config.log_every_images) or clock.is_finished:
                window.record(gradient_norm=norm, learning_rate=config.learning_rate * factor)
            is_stopping = engine.any(stop.is_raised)
            if is_stopping or clock.is_finished or clock.is_due(config.checkpoint.every_images):
                save(run)
            if is_stopping and not clock.is_finished:
                return Outcome.STOPPED
    return Outcome.FINISHED


def check_gradient(run: Training, norm: float) -> None:
    """Stop on every rank, and before anything is saved, if the gradient is no longer a number."""
    if math.isfinite(norm) and norm >= 0:  # DeepSpeed's word for a norm that is no number is -1
        return
    raise UserError(
        f"the gradient is no longer a number (norm {norm}) after {run.clock.images_seen} images; lower "
        f"train.learning_rate or raise train.schedule.warmup_images. The last good state is in {run.checkpoints.folder}"
    )


def check_attention(run: Training, batch: Batch) -> None:
    """Look at the routes of neighborhood attention on a batch; one that fails is reported and replaced."""
    with checked_routes():
        run.stage.loss(run.engine.module, batch, run.noise)


def save(run: Training) -> None:
    """Save together: gathering the state is collective, writing it is the first rank's."""
    started = time.perf_counter()
    state = run.engine.state()
    if run.engine.ranks.is_first:
        progress = {
            "images_seen": run.clock.images_seen,
            "stream": run.stream.state(),
            "identity": run.identity,
        }
        with disk_errors_explained(run.checkpoints.folder):
            run.checkpoints.save(run.clock.images_seen, Checkpoint(state, progress))
    run.tracker.record("checkpoint", run.clock.images_seen, seconds=time.perf_counter() - started)


def resume(run: Training) -> None:
    """Load the newest valid checkpoint, if there is one, into engine, stream and clock."""
    checkpoint = run.checkpoints.newest()
    if checkpoint is None:
        run.tracker.record("start", 0, ranks=run.engine.ranks.world_size)
        return
    if changed := differences(checkpoint.progress["identity"], run.identity):
        raise UserError(
            f"{run.checkpoints.folder} was trained with other options ({'; '.join(changed)}); "
            "repeat the options of the first start, or choose another run="
        )
    run.engine.load(checkpoint.engine)
    run.stream.load(checkpoint.progress["stream"])
    run.clock.images_seen = checkpoint.progress["images_seen"]
    run.tracker.record("resume", run.clock.images_seen, ranks=run.engine.ranks.world_size)
    log.info("continuing at %d of %d images", run.clock.images_seen, run.clock.images)


class Window:
    """Metrics since the last record, averaged over micro-batches and ranks; also where the time went."""

    def __init__(self, run: Training) -> None:
        self.run = run
        self._restart()

    def _restart(self) -> None:
        self.sums: dict[str, Any] = {}
        self.count = 0
        self.wait_seconds = 0.0
        self.started = time.perf_counter()
        self.first_image = self.run.clock.images_seen

    def waited(self, fetch: Callable[[], Any]) -> Any:
        before = time.perf_counter()
        fetched = fetch()
        self.wait_seconds += time.perf_counter() - before
        return fetched

    def add(self, metrics: dict[str, Any]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value  # stays on the device: no synchronisation
        self.count += 1

    def record(self, **last: float) -> None:
        """Write one event."""
        run = self.run
        metrics = {name: float(total) / self.count for name, total in self.sums.items()}
        corrupt = float(len(run.stream.quarantine) * run.engine.ranks.world_size)  # the mean is then the sum
        means = run.engine.mean(metrics | {"corrupt_samples": corrupt})
        seconds = time.perf_counter() - self.started
        images = run.clock.images_seen - self.first_image
        run.tracker.record(
            "train",
            run.clock.images_seen,
            **means,
            **last,
            images_per_second=images / seconds,
            data_wait_share=self.wait_seconds / seconds,
        )
        self._restart()
