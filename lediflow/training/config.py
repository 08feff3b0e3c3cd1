"""Options of a training: what is learned, how long, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from lediflow.engine.checkpoints import CheckpointConfig
from lediflow.engine.ema import EMAConfig
from lediflow.ranges import bounded
from lediflow.training.bad_steps import BadStepsConfig
from lediflow.training.clock import ScheduleConfig
from lediflow.training.exporting import EXPORTS
from lediflow.training.validation import ValidationConfig


@dataclass(kw_only=True)
class TrainingConfig:
    # how many images the run sees, repeats counted; the clock of everything else
    images: int = bounded(1_000_000, at_least=1)
    # samples per optimizer step over all ranks; changing it changes the training
    global_batch: int = bounded(64, at_least=1)
    # AdamW's, at its height; the mapping network takes a third of it
    learning_rate: float = bounded(3e-4, at_least=0)
    # shrinks the maps between tokens; norms, scales and embeddings are spared
    weight_decay: float = bounded(1e-2, at_least=0)
    beta1: float = bounded(0.9, at_least=0, below=1)  # memory of the gradient's direction
    # memory of the gradient's size; longer suits larger batches
    beta2: float = bounded(0.99, at_least=0, below=1)
    # the averaged weights of the end | best: of the lowest held-out loss, kept in each checkpoint
    export: str = "last"
    # ends the run so many images after the lowest held-out loss; shorter: ends sooner; 0 or null: never
    patience_images: int | None = bounded(None, at_least=0)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    bad_steps: BadStepsConfig = field(default_factory=BadStepsConfig)
    # averages over this many images become one point of a curve
    log_every_images: int = bounded(4_096, at_least=0)

    def __post_init__(self) -> None:
        if self.export not in EXPORTS:
            raise ValueError(f"train.export={self.export!r} is unknown; use one of {', '.join(EXPORTS)}")
