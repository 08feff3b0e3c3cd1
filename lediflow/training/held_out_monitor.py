"""Validation during a run: it measures held-out losses, keeps their history and reports once that they have turned.

Each validation measures the loss under the weights of this step and under the averaged ones. Averaged weights are
exported, so the history, the best validation and patience go by their loss.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lediflow.engine.checkpoints import Checkpoint
from lediflow.engine.ema import BEST
from lediflow.engine.protocol import Engine
from lediflow.stages.protocol import Stage
from lediflow.tracking.event_log import TURNED
from lediflow.tracking.tracker import Tracker
from lediflow.training.clock import Clock
from lediflow.training.config import TrainingConfig
from lediflow.training.held_out import HeldOut
from lediflow.training.turned import warning
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

        It begins anew where the held-out samples differ, or where the checkpoint lacks the best weights.
        """
        found = checkpoint.progress.get("held_out")
        known = HeldOut.from_state(found) if found else HeldOut(self.history.samples)
        fault = ""
        if self.validation is not None and known.samples != self.history.samples:
            fault = "the held-out samples have changed"
        elif self.config.export == BEST and not any(
            key.startswith(f"{BEST}/") for key in checkpoint.state.shapes
        ):
            fault = "the checkpoint has no best weights, since the run was not trained with train.export=best"
        if not fault:
            self.history = known
            return
        log.warning(
            "the search for the best validation starts again at %d images: %s", checkpoint.images_seen, fault
        )
        self.history = replace(known.restarted(), samples=self.history.samples)
