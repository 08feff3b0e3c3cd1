"""DeepSpeed ZeRO over any number of ranks. The only home of `deepspeed`.

Stages 0 (all replicated), 1 (optimizer state sharded) and 2 (gradients too), over NCCL or gloo. Adam's moments and
the float32 masters are reached parameter by parameter through DeepSpeed's public fragments, so that the logical
state does not depend on the number of ranks or the stage.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
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

STAGES = (0, 1, 2)


class DeepSpeedEngine:
    """Same contract as LocalEngine; `backward` and `step` go through DeepSpeed's engine."""

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
        self.ranks = ranks
        self.device = choose_device(config.device, ranks.local_rank)
        config = replace(config, precision=choose_precision(config.precision, self.device))
        _check(config)
        self.micro_batch, self.accumulation = accumulation_steps(
            global_batch, ranks.world_size, config.micro_batch
        )
        deepspeed = _import_deepspeed(self.device)
        _join_group(deepspeed, ranks, self.device)
        self.weights = module.to(self.device)
        masters = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        optimizer = torch.optim.AdamW(groups, betas=betas, fused=self.device.type == "cuda")
        self.base_rates = [group["lr"] for group in groups]
        # autocast must lie inside: DeepSpeed's engine switches off any that it finds around it
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=computing_in(
                config.precision,
                module,
                self.device,
                compile_mode=chosen_compile_mode(bool(config.compile), config.compile_mode),
                recompute=config.activation_checkpointing,
            ),
            optimizer=optimizer,
            config=_deepspeed_config(config, self.micro_batch, self.accumulation),
        )
        # bfloat16 training casts buffers too; Fourier frequencies rounded to 8 bits would be other frequencies
        for name, buffer in module.named_buffers():
            buffer.data = buffers[name]
        self.module = self.engine
        self.names = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.masters = _master_fragments(self.names)
        self._create_moments()
        self._set_masters(masters)
        self.ema = WeightAverage(list(self.masters.values()))
        self.steps = 0

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()

    def step(self, learning_rate_factor: float, ema_decay: float) -> float:
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * learning_rate_factor
        plain_norm = self._plain_gradient_norm()
        self.engine.step()
        self.ema.update(ema_decay)
        self.steps += 1
        return float(self.engine.get_global_grad_norm() if plain_norm is None else plain_norm)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        summed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return dict(zip(values, (summed / self.ranks.world_size).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        highest = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return bool(highest.item())

    def state(self) -> EngineState:
        tensors = {f"weight/{name}": self._full(name) for name in self.names}
        for moment in MOMENTS:
            tensors |= {f"{moment}/{name}": self._full(name, moment) for name in self.names}
        tensors |= {f"ema/{name}": tensor for name, tensor in self._averages().items()}
        tensors |= {f"buffer/{name}": buffer for name, buffer in read_buffers(self.weights).items()}
        return EngineState(tensors, self.steps)

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        self.steps = state.steps
        write_buffers(self.weights, state.tensors)
        self._set_masters({name: state.tensors[f"ema/{name}"] for name in self.names})
        self.ema = WeightAverage(list(self.masters.values()))
        self._set_masters({name: state.tensors[f"weight/{name}"] for name in self.names})
        for name in self.names:
            for moment in MOMENTS:
                self._set_full(name, state.tensors[f"{moment}/{name}"], moment)
        for adam in _inner(self.optimizer).state.values():
            adam["step"] = torch.as_tensor(float(state.steps), device=_device_of(adam["step"]))

    def export(self) -> dict[str, Tensor]:
        return read_buffers(self.weights) | self._averages()

    def _averages(self) -> dict[str, Tensor]:
        with self.ema.swapped_in():
            return {name: self._full(name) for name in self.names}

    def close(self) -> None:
        self.engine.destroy()
        dist.destroy_process_group()

    def _plain_gradient_norm(self) -> Tensor | None:
        """Without a ZeRO optimizer DeepSpeed clips but keeps no norm; gradients are whole on every rank then."""
        if _inner(self.optimizer) is not self.optimizer:
            return None
        return nn.utils.get_total_norm(
            [weight.grad for weight in self.names.values() if weight.grad is not None]
        )

    def _create_moments(self) -> None:
        """Adam's state, which torch creates at the first step only: a resumed run must fill it before."""
        inner = _inner(self.optimizer)
        for group in inner.param_groups:
            for owned in group["params"]:
                device = owned.device if inner.defaults["fused"] else None
                moments = {moment: torch.zeros_like(owned) for moment in MOMENTS}
                inner.state[owned] = {"step": torch.zeros((), device=device), **moments}
        if inner is not self.optimizer:
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def _set_masters(self, full: dict[str, Tensor]) -> None:
        """Set float32 masters and the weights used in the next forward pass."""
        for name, tensor in full.items():
            self._set_full(name, tensor)
            self.names[name].data.copy_(tensor)

    def _full(self, name: str, moment: str | None = None) -> Tensor:
        """The whole float32 tensor of a parameter or of one of its moments, on the CPU. Collective."""
        weight = self.names[name]
        if not _is_sharded(weight):
            full = weight if moment is None else self.optimizer.state[weight][moment]
        else:
            full = _sharded(weight).get_full_hp_param(optim_state_key=moment)
        return on_cpu(full)

    def _set_full(self, name: str, value: Tensor, moment: str | None = None) -> None:
        weight = self.names[name]
        value = value.to(self.device, torch.float32)
        if not _is_sharded(weight):
            (weight.data if moment is None else self.optimizer.state[weight][moment]).copy_(value)
        else:
            _sharded(weight).set_full_hp_param(value, optim_state_key=moment)


def _check(config: EngineConfig) -> None:
    if config.zero not in STAGES:
        raise UserError(f"engine.zero={config.zero} is not offered; use one of {STAGES}")
    if config.precision == "bfloat16" and config.zero == 0:
        # DeepSpeed 0.19 takes a dummy optimizer step there, and Adam's bias correction is off by one ever after
        raise UserError(
            "engine.zero=0 with engine.precision=bfloat16 is not exact in DeepSpeed; use engine.zero=1"
        )


def _import_deepspeed(device: torch.device) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # else the CPU backend compiles a shared-memory extension for 20 s at every first start
    __compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _join_group(deepspeed: Any, ranks: Ranks, device: torch.device) -> None:
    os.environ.update(ranks.environment())
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def _deepspeed_config(config: EngineConfig, micro_batch: int, accumulation: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.gradient_clip,
        "zero_optimization": {"stage": config.zero},
        "bf16": {"enabled": config.precision == "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


def _is_sharded(weight: nn.Parameter) -> bool:
    return hasattr(weight, "_hp_mapping")


def _sharded(weight: nn.Parameter) -> Any:
    """The parameter with the methods that DeepSpeed's ZeRO optimizer has given it."""
    return weight


def _master_fragments(names: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """The part of each float32 master that this rank owns; parameters it owns nothing of are absent."""
    fragments = {}
    for name, weight in names.items():
        if not _is_sharded(weight):
            fragments[name] = weight.data
        elif (mapping := _sharded(weight)._hp_mapping) is not None:
            fragments[name] = mapping.get_hp_fragment()
    return fragments


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """The plain AdamW inside DeepSpeed's ZeRO wrapper (stage 0 has no wrapper)."""
    return getattr(optimizer, "optimizer", optimizer)


def _device_of(value: Any) -> torch.device | None:
    return value.device if isinstance(value, Tensor) else None
