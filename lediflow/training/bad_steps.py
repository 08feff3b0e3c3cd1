"""Steps whose gradient is not finite: left out by the engine, named here, and counted until patience ends.

The engine leaves such a step out on every rank by itself; nobody waits for that. The host learns of it a step later on
a GPU, whose queue must not run empty, and at once on a CPU. As ranks share the norm, they all count alike.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lediflow.data.streams.batch import Batch
from lediflow.errors import UserError
from lediflow.ranges import bounded

log = logging.getLogger(__name__)

NAMED = 8  # samples that a warning names


@dataclass(kw_only=True)
class BadStepsConfig:
    in_a_row: int = bounded(
        8, at_least=1
    )  # steps left out one after another before the run goes back to its last checkpoint
    returns: int = bounded(3, at_least=0)  # times that a start goes back before it ends with an error


@dataclass
class Step:
    """What is known of one optimizer step before anybody has looked."""

    images_seen: int
    keys: list[str]  # of this rank's samples
    losses: list[Tensor]  # of this rank's micro-batches, per sample
    norm: Tensor  # of the gradient over all ranks, on its way to the host
    arrived: Callable[[], None]  # waits for it
    batch: Batch  # the last micro-batch
    learning_rate: float

    @property
    def is_bad(self) -> bool:
        self.arrived()
        return not math.isfinite(float(self.norm))

    @property
    def lag(self) -> int:
        """Steps that may pass before somebody looks."""
        return int(self.norm.is_pinned())

    @property
    def suspects(self) -> list[str]:
        """This rank's samples whose loss is not finite."""
        flags = torch.cat(self.losses).isfinite().tolist()
        return [key for key, is_finite in zip(self.keys, flags, strict=True) if not is_finite]


def on_its_way(norm: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """A 0-d tensor on the host, and what waits for its value: for the step it belongs to, not for those behind it."""
    if not norm.is_cuda:
        return norm, lambda: None
    host = torch.empty((), dtype=norm.dtype, pin_memory=True)
    host.copy_(norm, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived.synchronize


class BadSteps:
    """`note` each step; it answers with the bad one it has learned of, if any."""

    def __init__(self, config: BadStepsConfig) -> None:
        self.config = config
        self.in_a_row = 0
        self.returns = 0
        self.total = 0
        self.unseen: deque[Step] = deque()

    def note(self, step: Step) -> Step | None:
        self.unseen.append(step)
        return self._look() if len(self.unseen) > step.lag else None

    def flush(self) -> Step | None:
        """Look at what is left, before the run ends."""
        return self._look() if self.unseen else None

    @property
    def are_too_many(self) -> bool:
        return self.in_a_row >= self.config.in_a_row

    def count_return(self, folder: object) -> None:
        """One more return to the last checkpoint, or an error where there were enough."""
        self.returns += 1
        if self.returns > self.config.returns:
            raise UserError(
                f"{self.in_a_row} steps in a row had no finite gradient, again after {self.config.returns} returns to "
                f"the last good checkpoint (in {folder}); lower train.learning_rate, raise "
                "train.schedule.warmup_images, or look at the samples that the log names"
            )
        self.in_a_row = 0
        self.unseen.clear()

    def _look(self) -> Step | None:
        step = self.unseen.popleft()
        if not step.is_bad:
            self.in_a_row = 0
            return None
        self.in_a_row += 1
        self.total += 1
        return step


def described(step: Step, suspects: list[str]) -> str:
    """A sentence about a step that was left out."""
    names = ", ".join(suspects[:NAMED]) + (", ..." if len(suspects) > NAMED else "")
    why = f"the loss of {names} is not finite" if suspects else "every loss is finite, the gradient is not"
    return f"the step that ended at {step.images_seen} images was left out: {why}"
