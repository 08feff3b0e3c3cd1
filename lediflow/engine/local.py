"""Plain PyTorch in one process: the reference that every other engine must reproduce."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lediflow.engine.base import BaseEngine
from lediflow.engine.group import Group
from lediflow.engine.owned_state import (
    Piece,
    clip_gradient,
    collect,
    create_moments,
    restore,
    restore_buffers,
    set_steps_made,
    steps_made,
    whole_piece,
)
from lediflow.engine.precision import trained_in
from lediflow.engine.protocol import EngineConfig, EngineState, StateReader
from lediflow.engine.timings import Stopwatch
from lediflow.errors import UserError


class LocalEngine(BaseEngine):
    """Float32 weights; `precision=bfloat16` computes the model's products in bfloat16 (autocast)."""

    def _check(self, config: EngineConfig) -> None:
        if self.ranks.world_size > 1:
            raise UserError(
                f"engine=local is one process, but this run has {self.ranks.world_size} ranks; use engine=deepspeed"
            )

    def _join_group(self) -> Group:
        return Group(self.ranks)

    def _set_up(self, optimizer: Any) -> list[Piece]:
        self.module, self.optimizer = trained_in(self.config, self.weights, self.device), optimizer
        create_moments(optimizer, self.trained.values())
        return [whole_piece(name, weight, optimizer.state[weight]) for name, weight in self.trained.items()]

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()

    def _update_weights(self) -> Tensor:
        norm = clip_gradient(self.optimizer, self.trained.values(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def time_communication(self, stopwatch: Stopwatch) -> None:
        """One process exchanges no gradients."""

    def state(self) -> EngineState:
        return collect(
            self.pieces, dict(self.weights.named_buffers()), steps_made(self.optimizer), self.copies
        )

    def load(self, reader: StateReader) -> None:
        restore_buffers(self.weights, reader)
        restore(self.pieces, reader)
        set_steps_made(self.optimizer, reader.steps)

    def close(self) -> None:
        """One process has no process group to leave."""
