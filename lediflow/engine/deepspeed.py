"""DeepSpeed ZeRO over any number of ranks. The only module that imports `deepspeed`.

Stages 0 (all replicated), 1 (optimizer state sharded), 2 (gradients too) and 3 (weights too), over NCCL or gloo.
bfloat16 keeps float32 masters: DeepSpeed's own in stages 1 to 3. In stage 0 DeepSpeed's bfloat16 takes a dummy step
that shifts Adam's bias correction by one, so there the weights stay float32 and autocast computes in bfloat16.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lediflow.engine.ema import HALF_LIFE
from lediflow.engine.group import Group, join_group
from lediflow.engine.local import BaseEngine
from lediflow.engine.memory import BUCKET_ELEMENTS, bucket_elements
from lediflow.engine.owned_state import (
    WEIGHT,
    Piece,
    clip_gradient,
    collect,
    even_share,
    restore,
    restore_buffers,
    set_steps_made,
    steps_made,
)
from lediflow.engine.precision import trained_in
from lediflow.engine.protocol import EngineConfig, EngineState, StateReader
from lediflow.engine.timings import Stopwatch, time_calls
from lediflow.engine.zero import (
    DeviceClipping,
    GatheredRole,
    InitialWeights,
    leave_out_averaging,
    owned_pieces,
    plain_optimizer,
    set_forward_weights,
)
from lediflow.errors import UserError

ZERO_STAGES = (0, 1, 2, 3)
OFFLOADS = ("none", "cpu")
COLLECTIVES = (
    "all_reduce", "all_reduce_coalesced", "all_gather", "all_gather_into_tensor", "all_gather_coalesced",
    "reduce", "reduce_scatter", "reduce_scatter_tensor", "broadcast", "all_to_all_single", "barrier",
)  # fmt: skip
# elements; stage 3 keeps smaller parameters whole (norms, scales): gathering them costs more than it saves
WHOLE_BELOW = 2_048


class DeepSpeedEngine(BaseEngine):
    """Same contract as LocalEngine; `backward` and `step` go through DeepSpeed's engine."""

    def _check(self, config: EngineConfig) -> None:
        if config.zero not in ZERO_STAGES:
            raise UserError(f"engine.zero={config.zero} is not offered; use one of {ZERO_STAGES}")
        if config.offload not in OFFLOADS:
            raise UserError(f"engine.offload={config.offload!r} is unknown; use one of {', '.join(OFFLOADS)}")
        if config.offload != "none" and config.zero == 0:
            raise UserError(
                f"engine.offload={config.offload} moves what ZeRO shards, and engine.zero=0 shards nothing; use "
                "engine.zero=1 to 3, or engine.offload=none"
            )

    def _join_group(self) -> Group:
        self.deepspeed = _import_deepspeed(self.device)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        join_group(self.ranks, backend, self.config.join_seconds)
        self.deepspeed.init_distributed(verbose=False)  # takes the default process group as it is
        return Group(self.ranks, dist.new_group(backend="gloo"))

    def _set_up(self, optimizer: Any) -> list[Piece]:
        config, module = self.config, self.weights
        initial = InitialWeights(module)
        bucket = bucket_elements(sum(map(Tensor.numel, module.parameters())))
        # autocast must be inside: DeepSpeed's engine switches off any autocast around itself
        self.engine, self.optimizer, _, _ = self.deepspeed.initialize(
            model=trained_in(config, module, self.device),
            optimizer=optimizer,
            config=_deepspeed_config(config, self.micro_batch, self.accumulation, bucket),
        )
        self.module = self.engine
        if config.zero in (1, 2) and config.offload == "none":
            DeviceClipping(self.optimizer, self.deepspeed.comm.all_reduce, config.gradient_clip)
            if self.ranks.world_size == 1:
                leave_out_averaging(self.optimizer)
        if config.zero == 0 and self.ranks.world_size == 1:
            self.engine.enable_backward_allreduce = False  # it would copy gradients there and back
        self._keep_buffers_float32(initial)
        owned = owned_pieces(config.zero, self.optimizer, self.trained)
        restore(owned, initial)
        return owned

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()

    def _update_weights(self) -> Tensor:
        if self.config.zero == 0:
            # gradients are whole on every rank: clip and check them as LocalEngine does
            norm = clip_gradient(self.optimizer, self.trained.values(), self.config.gradient_clip)
            self.engine.step()
            return norm
        self.engine.step()
        norm = torch.as_tensor(self.engine.get_global_grad_norm())
        return torch.where(norm < 0, torch.nan, norm)  # DeepSpeed returns -1 for a norm that is not finite

    @contextmanager
    def averaged(self) -> Iterator[None]:
        if self.config.zero == 0:  # the weights are float32, and whole on every rank
            with super().averaged():
                yield
            return
        self._compute_with(HALF_LIFE)
        try:
            yield
        finally:
            self._compute_with(WEIGHT)

    def averaged_weights(self) -> dict[str, Tensor] | None:
        if self.config.zero == 0:
            return super().averaged_weights()
        gathered = self._gathered(HALF_LIFE).on_host(is_kept=self.ranks.is_first)
        return gathered | dict(self.weights.named_buffers()) if self.ranks.is_first else None

    def _compute_with(self, role: str) -> None:
        """Set the weights of the next forward pass from a role's pieces on all ranks."""
        set_forward_weights(self.config.zero, self.deepspeed, self.trained, self._gathered(role))

    def _gathered(self, role: str) -> GatheredRole:
        return GatheredRole(self.pieces, role, self.trained, self.device, self.deepspeed.comm.all_reduce)

    def time_communication(self, stopwatch: Stopwatch) -> None:
        time_calls(self.deepspeed.comm.comm.cdb, COLLECTIVES, stopwatch)

    def state(self) -> EngineState:
        pieces = even_share(self.pieces, self.ranks) if self.config.zero == 0 else self.pieces
        buffers = dict(self.weights.named_buffers()) if self.ranks.is_first else {}
        return collect(pieces, buffers, steps_made(plain_optimizer(self.optimizer)), self.copies)

    def load(self, reader: StateReader) -> None:
        restore_buffers(self.weights, reader)
        restore(self.pieces, reader)
        set_forward_weights(self.config.zero, self.deepspeed, self.trained, reader)
        set_steps_made(plain_optimizer(self.optimizer), reader.steps)

    def close(self) -> None:
        self.group.flush()
        self.engine.destroy()
        self.deepspeed.comm.destroy_process_group()

    def _keep_buffers_float32(self, initial: InitialWeights) -> None:
        """Undo the cast of buffers to bfloat16, which would round the Fourier frequencies to 8 bits."""
        for name, buffer in self.weights.named_buffers():
            buffer.data = initial.tensors[f"buffer/{name}"].to(self.device)


def _import_deepspeed(device: torch.device) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # otherwise the CPU backend compiles a shared-memory extension, which takes 20 s
    __compatible_ops__["deepspeed_shm_comm"] = False
    _import_muon()
    return deepspeed


def _import_muon() -> None:
    """Import DeepSpeed's optimizer Muon, as `deepspeed.initialize` would, without PyTorch's compiler.

    It is not used here, but its functions are decorated with torch.compile, which takes 1.5 s of every rank's start.
    """
    from deepspeed.runtime import compiler

    compile_function = compiler.compile
    compiler.compile = lambda: compiler.dummy_decorator
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    finally:
        compiler.compile = compile_function


def _deepspeed_config(
    config: EngineConfig, micro_batch: int, accumulation: int, bucket: int
) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": config.zero,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        "stage3_param_persistence_threshold": WHOLE_BELOW,
    }
    if config.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.gradient_clip if config.zero else 0.0,
        "zero_optimization": zero,
        "bf16": {
            "enabled": config.zero > 0 and config.precision == "bfloat16",
            "check_grad_overflow": config.offload == "cpu",  # without offload DeviceClipping does it
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device twice a step
    }
