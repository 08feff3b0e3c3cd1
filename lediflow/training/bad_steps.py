"""Steps whose gradient is not finite: the engine leaves them out; they are reported and counted here.

The engine leaves such a step out on every rank without waiting for the host. On a GPU, whose queue must not run empty,
the host learns of it one step later; on a CPU at once. Ranks share the norm, so they all count alike.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lediflow.errors import UserError
from lediflow.ranges import bounded

log = logging.getLogger(__name__)

NAMED = 8  # samples named in a warning
ALL_FINITE = "every loss is finite, the gradient is not"
RETURNS = 3  # times that one start of the run goes back to a checkpoint before it ends with an error


@dataclass(kw_only=True)
class BadStepsConfig:
    """What many steps without a finite gradient lead to."""

    # after this many consecutive steps without a finite gradient the run returns to its last checkpoint
    in_a_row: int = bounded(8, at_least=1)


@dataclass
class Step:
    """One optimizer step, before its gradient norm was read."""

    images_seen: int
    keys: list[str]  # of this rank's samples
    losses: list[Tensor]  # of this rank's micro-batches, per sample
    norm: Tensor  # of the gradient over all ranks, being copied to the host
    arrived: Callable[[], None]  # waits for the copy
    learning_rate: float

    @property
    def is_bad(self) -> bool:
        self.arrived()
        return not math.isfinite(float(self.norm))

    @property
    def lag(self) -> int:
        """Steps that may pass before the norm is read: 1 where it comes from a GPU."""
        return int(self.norm.is_pinned())

    @property
    def suspects(self) -> list[str]:
        """This rank's samples whose loss is not finite."""
        flags = torch.cat(self.losses).isfinite().tolist()
        return [key for key, is_finite in zip(self.keys, flags, strict=True) if not is_finite]


def copied_to_host(norm: Tensor) -> tuple[Tensor, Callable[[], None]]:
    """A copy of a 0-d tensor to the host, and a function that waits for its value but not for later steps."""
    if not norm.is_cuda:
        return norm, lambda: None
    host = torch.empty((), dtype=norm.dtype, pin_memory=True)
    host.copy_(norm, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return host, arrived.synchronize


class BadSteps:
    """Counts bad steps: `note` every step, it returns a bad one as soon as it is known, or None."""

    def __init__(self, config: BadStepsConfig) -> None:
        self.config = config
        self.in_a_row = 0
        self.returns = 0
        self.total = 0
        self.unread: deque[Step] = deque()

    def note(self, step: Step) -> Step | None:
        self.unread.append(step)
        return self._read_oldest() if len(self.unread) > step.lag else None

    def flush(self) -> Step | None:
        """Read the norm of the last step, before the run ends."""
        return self._read_oldest() if self.unread else None

    @property
    def are_too_many(self) -> bool:
        return self.in_a_row >= self.config.in_a_row

    def count_return(self, folder: object) -> None:
        """Count one return to the last checkpoint; UserError if there were too many."""
        self.returns += 1
        if self.returns > RETURNS:
            raise UserError(
                f"{self.in_a_row} steps in a row had no finite gradient, again after {RETURNS} returns to "
                f"the last good checkpoint (in {folder}); lower train.learning_rate, raise "
                "train.schedule.warmup_images, or look at the samples that the log names"
            )
        self.in_a_row = 0
        self.unread.clear()

    def _read_oldest(self) -> Step | None:
        step = self.unread.popleft()
        if not step.is_bad:
            self.in_a_row = 0
            return None
        self.in_a_row += 1
        self.total += 1
        return step


def name_some(samples: Sequence[str]) -> str:
    """The first samples of a list, for a message."""
    return ", ".join(samples[:NAMED]) + (", ..." if len(samples) > NAMED else "")


def describe_bad_step(step: Step, suspects: list[str]) -> str:
    """A sentence for the log about a step that was left out."""
    why = f"the loss of {name_some(suspects)} is not finite" if suspects else ALL_FINITE
    return f"the step that ended at {step.images_seen} images was left out: {why}"
