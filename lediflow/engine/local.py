"""Plain PyTorch in one process: the reference that every other engine must reproduce."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lediflow.engine.ema import WeightAverage
from lediflow.engine.precision import choose_precision, chosen_compile_mode, computing_in
from lediflow.engine.protocol import (
    MOMENTS,
    EngineConfig,
    EngineState,
    accumulation_steps,
    on_cpu,
    read_buffers,
    write_buffers,
)
from lediflow.engine.ranks import Ranks, choose_device
from lediflow.errors import UserError


class LocalEngine:
    """Float32 weights; `precision=bfloat16` computes the model's products in bfloat16 (autocast)."""

    def __init__(
        self,
        module: nn.Module,
        groups: list[dict],
        config: EngineConfig,
        ranks: Ranks,
        *,
        global_batch: int,
        betas: tuple[float, float],
    ) -> None:
        if ranks.world_size > 1:
            raise UserError(
                f"engine=local is one process, but this run has {ranks.world_size} ranks; use engine=deepspeed"
            )
        self.ranks = ranks
        self.device = choose_device(config.device, ranks.local_rank)
        self.micro_batch, self.accumulation = accumulation_steps(global_batch, 1, config.micro_batch)
        self.weights = module.to(self.device)
        precision = choose_precision(config.precision, self.device)
        self.module = computing_in(
            precision,
            self.weights,
            self.device,
            compile_mode=chosen_compile_mode(bool(config.compile), config.compile_mode),
            recompute=config.activation_checkpointing,
        )
        self.gradient_clip = config.gradient_clip
        self.optimizer = torch.optim.AdamW(groups, betas=betas, fused=self.device.type == "cuda")
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.names = {
            name: weight for name, weight in self.weights.named_parameters() if weight.requires_grad
        }
        self.ema = WeightAverage(list(self.names.values()))
        self.steps = 0

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()

    def step(self, learning_rate_factor: float, ema_decay: float) -> float:
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * learning_rate_factor
        norm = nn.utils.clip_grad_norm_(self.names.values(), self.gradient_clip or torch.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(ema_decay)
        self.steps += 1
        return float(norm)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def state(self) -> EngineState:
        tensors: dict[str, Tensor] = {f"weight/{name}": weight for name, weight in self.names.items()}
        for name, weight in self.names.items():
            for moment in MOMENTS:
                tensors[f"{moment}/{name}"] = self._moments(weight)[moment]
        tensors |= {f"ema/{name}": tensor for name, tensor in self._averages().items()}
        tensors |= {f"buffer/{name}": buffer for name, buffer in self.weights.named_buffers()}
        return EngineState({key: on_cpu(tensor) for key, tensor in tensors.items()}, self.steps)

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        self.steps = state.steps
        write_buffers(self.weights, state.tensors)
        for average, (name, weight) in zip(self.ema.average, self.names.items(), strict=True):
            weight.copy_(state.tensors[f"weight/{name}"])
            average.copy_(state.tensors[f"ema/{name}"])
            for moment in MOMENTS:
                self._moments(weight)[moment].copy_(state.tensors[f"{moment}/{name}"])
            self._moments(weight)["step"].fill_(state.steps)

    def export(self) -> dict[str, Tensor]:
        return read_buffers(self.weights) | {
            name: on_cpu(average) for name, average in self._averages().items()
        }

    def close(self) -> None:
        """One process has no group to leave."""

    def _averages(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.ema.average, strict=True))

    def _moments(self, weight: Tensor) -> dict[str, Tensor]:
        """Adam's state of a weight, which torch itself creates at the first step only."""
        state = self.optimizer.state[weight]
        if not state:
            device = weight.device if self.optimizer.defaults["fused"] else None
            state["step"] = torch.zeros((), device=device)
            state |= {moment: torch.zeros_like(weight) for moment in MOMENTS}
        return state
