"""The common part of all engines, and the engine of one process: plain PyTorch, the reference for every other engine.

BaseEngine does what does not depend on the number of ranks: set-up, learning rates, averages of the weights, frozen
models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lediflow.engine.ema import HALF_LIFE, Averages
from lediflow.engine.group import Group
from lediflow.engine.owned_state import (
    WEIGHT,
    HostCopies,
    Piece,
    adamw,
    clip_gradient,
    collect,
    create_moments,
    restore,
    restore_buffers,
    set_steps_made,
    steps_made,
    whole_piece,
    with_averages,
)
from lediflow.engine.passes import Recording
from lediflow.engine.precision import frozen_in, resolved, trained_in
from lediflow.engine.protocol import (
    EngineConfig,
    EngineState,
    Fitting,
    M,
    StateReader,
    T,
    accumulation_steps,
)
from lediflow.engine.ranks import Ranks, choose_device
from lediflow.engine.timings import Stopwatch
from lediflow.errors import UserError


class BaseEngine(ABC):
    """Common part of the engines (see protocol.Engine).

    `groups` are the optimizer's parameter groups, `betas` AdamW's, `averages` the roles of the averages to keep.
    `fitting` finds the micro-batch where `config.micro_batch` is 0.
    """

    module: nn.Module
    optimizer: Any
    is_recorded = False  # whether gradients are written by a recording, into tensors that stay

    def __init__(
        self,
        module: nn.Module,
        groups: list[dict[str, Any]],
        config: EngineConfig,
        ranks: Ranks,
        *,
        global_batch: int,
        betas: tuple[float, float],
        averages: tuple[str, ...] = (HALF_LIFE,),
        fitting: Fitting | None = None,
    ) -> None:
        self.ranks = ranks
        self._check(config)
        self.device = choose_device(config.device, ranks.local_rank, option="engine.device")
        self.config = resolved(config, self.device)
        self.group = self._join_group()
        micro_batch = config.micro_batch
        if fitting and not micro_batch:
            micro_batch = fitting(self.device, ranks, self.group.smallest)
        self.micro_batch, self.accumulation = accumulation_steps(global_batch, ranks.world_size, micro_batch)
        self.weights = module.to(self.device)
        self.trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.base_rates = [group["lr"] for group in groups]
        owned = self._set_up(adamw(groups, betas))
        self.averages = Averages([piece.views[WEIGHT] for piece in owned], averages)
        self.pieces = with_averages(owned, self.averages)
        self.copies = HostCopies()

    @abstractmethod
    def _check(self, config: EngineConfig) -> None:
        """Raise UserError for a configuration that the engine does not support."""

    @abstractmethod
    def _join_group(self) -> Group:
        """Connect the ranks."""

    @abstractmethod
    def _set_up(self, optimizer: Any) -> list[Piece]:
        """Set `module` and `optimizer`, create Adam's moments; the pieces that this rank owns."""

    @abstractmethod
    def _update_weights(self) -> Tensor:
        """Clip the gradient, step the optimizer, clear the gradient; its norm before clipping, 0-d."""

    def recorded(self, passes: Callable[[], T]) -> Callable[[], T]:
        raise RuntimeError("this engine records no passes")

    def forget_recording(self) -> None:
        self.is_recorded = False
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, learning_rate_factor: float, decays: Mapping[str, float]) -> Tensor:
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * learning_rate_factor
        norm = self._update_weights()
        self.averages.update(decays)
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self.averages.swap_with_weights()
        try:
            yield
        finally:
            self.averages.swap_with_weights()

    def averaged_weights(self) -> dict[str, Tensor] | None:
        if not self.ranks.is_first:
            return None
        whole = {piece.name: piece.views[HALF_LIFE].view(piece.extent.shape) for piece in self.pieces}
        return whole | dict(self.weights.named_buffers())

    def keep_best(self) -> None:
        self.averages.keep_best()

    def frozen(self, module: M) -> M:
        return frozen_in(self.config, module, self.device)


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

    def recorded(self, passes: Callable[[], T]) -> Callable[[], T]:
        # each call writes the gradients into the tensors of the recording; with accumulation it adds to these zeros
        self.is_recorded = True
        self.optimizer.zero_grad(set_to_none=True)
        if self.accumulation > 1:
            for weight in self.trained.values():
                weight.grad = torch.zeros_like(weight)
        return Recording(passes)

    def _update_weights(self) -> Tensor:
        norm = clip_gradient(self.optimizer, self.trained.values(), self.config.gradient_clip)
        self.optimizer.step()
        if not self.is_recorded:
            self.optimizer.zero_grad(set_to_none=True)
        elif self.accumulation > 1:
            self.optimizer.zero_grad(set_to_none=False)
        return norm

    def time_communication(self, stopwatch: Stopwatch) -> None:
        """Do nothing: one process exchanges no gradients."""

    def state(self) -> EngineState:
        return collect(
            self.pieces, dict(self.weights.named_buffers()), steps_made(self.optimizer), self.copies
        )

    def load(self, reader: StateReader) -> None:
        restore_buffers(self.weights, reader)
        restore(self.pieces, reader)
        set_steps_made(self.optimizer, reader.steps)

    def close(self) -> None:
        """Do nothing: one process has no process group."""
