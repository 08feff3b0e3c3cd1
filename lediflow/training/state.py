"""The parts of one training run and what its checkpoints record of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lediflow.data.streams.batch import Batch
from lediflow.data.streams.stream import SampleStream
from lediflow.engine.checkpoints import CheckpointFolder
from lediflow.engine.checkpoints.averages import HISTORY
from lediflow.engine.passes import Passes
from lediflow.engine.protocol import Engine
from lediflow.engine.stop import StopRequest
from lediflow.engine.watchdog import Watchdog
from lediflow.flow.noise import SampleNoise
from lediflow.run_folder import IMAGES, PATIENCE
from lediflow.stages.protocol import Stage, StageLoss
from lediflow.tracking.tracker import Tracker
from lediflow.training.bad_steps import BadSteps
from lediflow.training.clock import Clock
from lediflow.training.config import TrainingConfig
from lediflow.training.held_out_monitor import HeldOutMonitor
from lediflow.training.pictures.monitor import TrainingPictures
from lediflow.training.recording import Recorder
from lediflow.training.saving import Saving


@dataclass
class Training:
    """One run, ready to begin: `resume.begin(run, resume.find_newest(run))`, then `loop.train(run)`."""

    engine: Engine
    stage: Stage
    stream: SampleStream
    noise: SampleNoise
    clock: Clock
    tracker: Tracker
    saving: Saving
    recorder: Recorder
    held_out: HeldOutMonitor
    pictures: TrainingPictures
    stop: StopRequest
    watchdog: Watchdog
    config: TrainingConfig
    identity: dict[str, Any]  # what a continued run must have in common with its start: seed, stage, parent
    history: str  # names all steps since the run's first one; kept when the run is continued
    export: dict[str, Any] = field(default_factory=dict)  # facts about exported weights
    passes: Passes[Batch, StageLoss] = field(init=False)
    bad_steps: BadSteps = field(init=False)

    def __post_init__(self) -> None:
        self.passes = Passes(
            self.engine, lambda batch: self.stage.loss(self.engine.module, batch, self.noise)
        )
        self.bad_steps = BadSteps(self.config.bad_steps)

    @property
    def checkpoints(self) -> CheckpointFolder:
        return self.saving.writer.folder

    @property
    def progress(self) -> dict[str, Any]:
        """The part of a checkpoint besides the engine's state."""
        return {
            "images_seen": self.clock.images_seen,
            "stream": self.stream.state(),
            "identity": self.identity,
            HISTORY: self.history,
            "ranks": self.engine.ranks.world_size,
            "export": self.export,
            "exports": self.config.export,
            "held_out": self.held_out.history.state() if self.held_out.history.best else None,
            "ended": self.ended,
        }

    @property
    def is_over(self) -> bool:
        return self.clock.is_finished or self.held_out.is_out_of_patience

    @property
    def ended(self) -> str | None:
        """Why the run is over; None while it is not."""
        if self.clock.is_finished:
            return IMAGES
        return PATIENCE if self.held_out.is_out_of_patience else None
