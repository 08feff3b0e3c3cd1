"""Options of a training: what is learned, how long, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from lediflow.engine.checkpoints import CheckpointConfig
from lediflow.engine.ema import EMAConfig
from lediflow.ranges import bounded
from lediflow.training.bad_steps import BadStepsConfig
from lediflow.training.clock import ScheduleConfig
from lediflow.training.exporting import EXPORTS
from lediflow.training.pictures.schedule import PicturesConfig
from lediflow.training.validation import ValidationConfig


@dataclass(kw_only=True)
class TrainingConfig:
    """Length, optimizer, averages, checkpoints, validations and pictures of a run."""

    # number of images the run sees, repeats included; schedules and intervals count in images, too
    images: int = bounded(1_000_000, at_least=1)
    # samples per optimizer step over all ranks; changing it changes the training
    global_batch: int = bounded(64, at_least=1)
    # AdamW's, after the warm-up; the mapping network has a third of it
    learning_rate: float = bounded(3e-4, at_least=0)
    # AdamW's, of the linear maps; norms, scales and embeddings have none
    weight_decay: float = bounded(1e-2, at_least=0)
    beta1: float = bounded(0.9, at_least=0, below=1)  # AdamW's decay rate of the mean gradient
    # AdamW's decay rate of the mean squared gradient; closer to 1 suits larger batches
    beta2: float = bounded(0.99, at_least=0, below=1)
    # last: the averaged weights of the end | best: those of the lowest held-out loss, kept in each checkpoint
    export: str = "last"
    # the run ends this many images after its lowest held-out loss; 0 or null: never
    patience_images: int | None = bounded(None, at_least=0)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    bad_steps: BadStepsConfig = field(default_factory=BadStepsConfig)
    # images per point of the curves, each a mean over these images; 0: only at the end
    log_every_images: int = bounded(4_096, at_least=0)

    def __post_init__(self) -> None:
        if self.export not in EXPORTS:
            raise ValueError(f"train.export={self.export!r} is unknown; use one of {', '.join(EXPORTS)}")
