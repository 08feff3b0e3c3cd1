"""Validation during a run: measures held-out losses, keeps their history and reports once that they have turned.

Each validation measures the loss under the weights of this step and under the averaged ones. Averaged weights are
exported, so the history, the best validation and patience use their loss. This module also has the messages about a
loss that has turned: that of the log and the event, and the last line of a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from lediflow.engine.checkpoints import Checkpoint
from lediflow.engine.ema import BEST
from lediflow.engine.protocol import Engine
from lediflow.stages.protocol import Stage
from lediflow.tracking.event_log import TURNED
from lediflow.tracking.tracker import Tracker
from lediflow.training.bad_steps import name_some
from lediflow.training.clock import Clock
from lediflow.training.config import TrainingConfig
from lediflow.training.exporting import holds_best
from lediflow.training.held_out import HeldOut, Point, Turn
from lediflow.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass
class HeldOutMonitor:
    """The held-out losses of one run. Every rank makes the same calls."""

    engine: Engine
    tracker: Tracker
    config: TrainingConfig
    validation: Validation | None = None  # None: the run does not validate
    history: HeldOut = field(default_factory=HeldOut)
    compared_from: int = 0  # images seen; earlier losses are not compared with later ones
    is_logged: Callable[[str], bool] = lambda event: False  # whether the run's log has an event of this name
    has_unreported_turn: bool = False  # the loss has turned: the loop saves, then reports it

    def is_due(self, clock: Clock) -> bool:
        if self.validation is None:
            return False
        return clock.is_due(self.validation.every_images) or clock.is_finished

    @property
    def is_out_of_patience(self) -> bool:
        """Whether `train.patience_images` have passed since the best validation; False before the first one."""
        patience = self.config.patience_images
        return bool(patience) and self.history.images_since_best >= (patience or 0)

    def validate(self, stage: Stage, images_seen: int) -> float:
        """Measure the held-out losses and record them; its duration in seconds."""
        assert self.validation is not None
        started = time.perf_counter()
        found = self.validation.measure(self.engine, stage)
        with self.engine.averaged():
            losses = self.validation.losses(self.engine, stage)
        if (bad := ~np.isfinite(losses)).any() and self.engine.ranks.is_first:
            names = name_some(self.validation.keys_at(bad))
            log.warning("validation at %d images: the loss of %s is not finite", images_seen, names)
        if self.history.last and self.history.last.images_seen < self.compared_from:
            self.history = self.history.restarted()
        point = self.history.note(images_seen, losses)
        if point.is_best:
            self.engine.keep_best()
        seconds = time.perf_counter() - started
        self.tracker.record("validation", images_seen, **found | point.values | {"seconds": seconds})
        self.has_unreported_turn |= point.has_turned
        return seconds

    def report_turn(self, images_seen: int) -> None:
        """Report that the loss has turned, once in a run.

        Called after a save: a run that is continued from there knows of the turn, and the log says whether it was
        reported.
        """
        turn, self.has_unreported_turn = self.history.turn, False
        if turn is None or not self.engine.ranks.is_first or self.is_logged(TURNED):
            return
        text = warning(turn, self.config)
        log.warning("%s", text)
        self.tracker.record(TURNED, images_seen, **turn.values, message=text)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue the history of a checkpoint.

        It starts again if the held-out samples differ, or if the checkpoint lacks the best weights.
        """
        found = checkpoint.progress.get("held_out")
        known = HeldOut.from_state(found) if found else HeldOut(self.history.samples)
        fault = ""
        if self.validation is not None and known.samples != self.history.samples:
            fault = "the held-out samples have changed"
        elif self.config.export == BEST and not holds_best(checkpoint):
            fault = "the checkpoint has no best weights, since the run was not trained with train.export=best"
        if not fault:
            self.history = known
            return
        log.warning(
            "the search for the best validation starts again at %d images: %s", checkpoint.images_seen, fault
        )
        self.history = replace(known.restarted(), samples=self.history.samples)


def warning(point: Point | Turn, config: TrainingConfig) -> str:
    """The message of the log and of the event."""
    return (
        f"held-out loss was lowest, {figure(point.best_loss)}, at {point.best_images_seen:,} images and is "
        f"{point.rise:+.2g} since (noise {point.noise:.1g}): the model memorises; use {advice(config)}"
    )


def advice(config: TrainingConfig) -> str:
    """Remedies that the configuration does not use yet."""
    options = ["train.export=best"] * (config.export != "best")
    options += ["train.patience_images=..."] * (not config.patience_images)
    return ", ".join([*options, "dropout", "augmentation", "or more pictures"])


def final_message(point: Point | None, config: TrainingConfig, ran_out_of_patience: bool) -> str:
    """The last line of a run that ended above its lowest held-out loss, or by patience; empty for others."""
    if point is None or not (point.is_above or ran_out_of_patience):
        return ""
    why = (
        f"stopped at {point.images_seen:,} images by train.patience_images={config.patience_images}: "
        if ran_out_of_patience
        else ""
    )
    ended = (
        f"{why}held-out loss was lowest, {figure(point.best_loss)}, at {point.best_images_seen:,} images and ended "
        f"{point.rise:+.2g} from there (noise {point.noise:.1g})"
    )
    if config.export == "best":
        return f"{ended}; exported are the averaged weights of {point.best_images_seen:,} images"
    exported = f"exported are the averaged weights of {point.images_seen:,} images"
    return f"{ended}; {exported}" + (
        f", which memorise: use {advice(config)}"
        if point.is_above
        else "; train.export=best takes the lowest"
    )


def figure(loss: float) -> str:
    """Three digits: -1.48, 0.107."""
    return f"{loss:.3g}"
