"""Plain PyTorch in one process: the reference that every other engine must reproduce."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lediflow.engine.ema import Averages
from lediflow.engine.owned_state import (
    MOMENTS,
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
    with_averages,
)
from lediflow.engine.precision import frozen_in, resolved, trained_in
from lediflow.engine.protocol import (
    EngineConfig,
    EngineState,
    Extent,
    Fitting,
    M,
    StateReader,
    accumulation_steps,
)
from lediflow.engine.ranks import Ranks, choose_device
from lediflow.engine.timings import Stopwatch
from lediflow.errors import UserError


class LocalEngine:
    """Float32 weights; `precision=bfloat16` computes the model's products in bfloat16 (autocast)."""

    def __init__(
        self,
        module: nn.Module,
        groups: list[dict[str, Any]],
        config: EngineConfig,
        ranks: Ranks,
        *,
        global_batch: int,
        betas: tuple[float, float],
        averages: tuple[str, ...] = ("ema",),
        fitting: Fitting | None = None,
    ) -> None:
        if ranks.world_size > 1:
            raise UserError(
                f"engine=local is one process, but this run has {ranks.world_size} ranks; use engine=deepspeed"
            )
        self.ranks = ranks
        self.device = choose_device(config.device, ranks.local_rank)
        self.config = resolved(config, self.device)
        micro_batch = config.micro_batch
        if fitting and not micro_batch and self.device.type == "cuda":
            micro_batch = fitting(self.device, ranks, lambda fitting_here: fitting_here)
        self.micro_batch, self.accumulation = accumulation_steps(global_batch, 1, micro_batch)
        self.weights = module.to(self.device)
        self.module = trained_in(self.config, self.weights, self.device)
        self.optimizer = adamw(groups, betas)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        create_moments(self.optimizer, self.trained.values())
        self.averages = Averages([weight.data.view(-1) for weight in self.trained.values()], averages)
        self.pieces = with_averages(
            [
                whole_piece(name, weight, self.optimizer.state[weight])
                for name, weight in self.trained.items()
            ],
            self.averages,
        )
        self.copies = HostCopies()

    def frozen(self, module: M) -> M:
        return frozen_in(self.config, module, self.device)

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()

    def step(self, learning_rate_factor: float, decays: Mapping[str, float]) -> Tensor:
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * learning_rate_factor
        norm = clip_gradient(self.optimizer, self.trained.values(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.averages.update(decays)
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self.averages.swap_with_weights()
        try:
            yield
        finally:
            self.averages.swap_with_weights()

    def keep_best(self) -> None:
        self.averages.keep_best()

    def sum(self, values: Tensor) -> Tensor:
        return values.detach().to("cpu", torch.float64)

    def gather(self, values: Tensor) -> Tensor:
        return self.sum(values)[None]

    def everyones(self, thing: Any) -> list[Any]:
        return [thing]

    def share(self, thing: Any) -> Any:
        return thing

    def agree(self, votes: list[int]) -> list[int]:
        return votes

    def agree_now(self, votes: list[int]) -> list[int]:
        return votes

    def time_communication(self, stopwatch: Stopwatch) -> None:
        """One process talks to nobody."""

    def state(self) -> EngineState:
        return collect(
            self.pieces, dict(self.weights.named_buffers()), steps_made(self.optimizer), self.copies
        )

    def load(self, reader: StateReader) -> None:
        restore_buffers(self.weights, reader)
        restore(self.pieces, reader)
        set_steps_made(self.optimizer, reader.steps)

    def close(self) -> None:
        """One process has no group to leave."""


def whole_piece(name: str, weight: Tensor, moments: Mapping[str, Tensor]) -> Piece:
    """A parameter of which this rank has everything."""
    views = {WEIGHT: weight.data.view(-1)} | {moment: moments[moment].view(-1) for moment in MOMENTS}
    return Piece(name, Extent(0, tuple(weight.shape)), views)
