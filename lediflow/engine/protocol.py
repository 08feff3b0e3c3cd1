"""The interface between the training loop and an engine, for any number of machines.

The logical state of a run is a set of float32 tensors named by role and parameter: `weight/<name>`, `exp_avg/<name>`,
`exp_avg_sq/<name>` (Adam's moments), `ema/<name>` and `ema_<sigma_rel>/<name>` (averages) and `best/<name>` (`ema` at
the best validation, where that is exported). `buffer/<name>` holds values that are drawn once and never trained
(Fourier frequencies). The state does not depend on the number of ranks or on the ZeRO stage, so any engine loads what
any other saved. A rank saves pieces: ranges of elements of flattened tensors, such that the pieces of all ranks hold
every element exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lediflow.engine.group import Group
from lediflow.engine.ranks import Ranks
from lediflow.engine.timings import Stopwatch
from lediflow.ranges import bounded


@dataclass(kw_only=True)
class EngineConfig:
    """Devices, precision and parallelism.

    Only `gradient_clip` changes a result beyond the rounding of numbers, and `micro_batch` where a coupling pairs the
    samples of a micro-batch.
    """

    # local: plain PyTorch in one process, the reference | deepspeed: ZeRO over any number of ranks
    name: str = "local"
    device: str = "auto"  # auto: the GPU where there is one | cpu | cuda
    precision: str = "float32"  # bfloat16: half the memory, twice the speed on GPUs | auto: where it is fast
    # products of large layers in 8 bits, with precision=bfloat16 on Ada, Hopper and newer GPUs: less memory, and slower
    # in the steps that were measured
    float8: bool = False
    # ZeRO stage of DeepSpeed: 1 shards the optimizer state, 2 also the gradients, 3 also the weights
    zero: int = bounded(0, at_least=0, at_most=3)
    # cpu: the optimizer state stays in host memory (zero 1 to 3): less GPU memory, slower steps
    offload: str = "none"
    # torch.compile the model: a minute to start, faster steps; null: on GPUs, up to zero=2
    compile: bool | None = None
    # of torch.compile; reduce-overhead has CUDA graphs of its own, one for each pass of a model
    compile_mode: str = "default"
    # record forward and backward pass once and repeat them as a CUDA graph, for models limited by the launches of
    # kernels; null: where possible, which is engine=local on a GPU
    cuda_graphs: bool | None = None
    # implementation of neighborhood attention: dense | sdpa | triton | natten | flex; auto measures them
    attention_route: str = "auto"
    # recompute activations in the backward pass: less memory, a third more work
    activation_checkpointing: bool = False
    # upper limit of the gradient's global norm; 0: no clipping
    gradient_clip: float = bounded(1.0, at_least=0)
    # samples of one forward pass on a rank; 0: as many of its share of the batch as fit its memory
    micro_batch: int = bounded(0, at_least=0)
    join_seconds: float = bounded(600.0, above=0)  # how long ranks wait for each other at the start
    # peak TFLOP/s of one device, for its utilisation (mfu); null: looked up by the GPU's name
    peak_tflops: float | None = bounded(None, above=0)


class Extent(NamedTuple):
    """Position of a flat piece: from element `start` on, in a tensor of shape `shape`."""

    start: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EngineState:
    """The part of the state that one rank saves: flat float32 pieces on the CPU, and the number of optimizer steps."""

    tensors: dict[str, Tensor]
    steps: int
    extents: dict[str, Extent] = field(default_factory=dict)
    ready: Callable[[], None] = lambda: None  # waits until copies from the device have arrived


class StateReader(Protocol):
    """A whole logical state, from which an engine reads the pieces that it owns."""

    steps: int

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, by role and name."""
        ...

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Elements [start, stop) of a flattened tensor, float32 on the CPU."""
        ...


T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
# (device, ranks, function that returns the smallest number over ranks) -> micro-batch that fits the device
Fitting = Callable[[torch.device, Ranks, Callable[[int], int]], int]


class Engine(Protocol):
    """One optimizer step is: `accumulation` times `backward(loss)`, then `step`. Every rank makes the same calls."""

    ranks: Ranks
    group: Group  # messages between ranks besides gradients and weights
    device: torch.device
    config: EngineConfig  # with `auto` and null resolved
    module: nn.Module  # call it to get a loss; its outputs carry gradients
    micro_batch: int  # samples of one call
    accumulation: int  # micro-batches in a rank's share of the global batch

    def frozen(self, module: M) -> M:
        """Another model on this device, without gradients, computing as `module` does."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a micro-batch's mean loss, weighted by 1 / accumulation."""
        ...

    def recorded(self, passes: Callable[[], T]) -> Callable[[], T]:
        """A recording of `passes`, which must call `backward` once; only where `config.cuda_graphs` is true.

        Call it between two steps. The results of a call are overwritten by the next one. RuntimeError if `passes` does
        what cannot be recorded; then `forget_recording` must follow.
        """
        ...

    def forget_recording(self) -> None:
        """Go on as if nothing had been recorded."""
        ...

    def step(self, learning_rate_factor: float, decays: Mapping[str, float]) -> Tensor:
        """Update weights and their averages (`decays` by role); the gradient's norm before clipping, 0-d.

        Where the norm is not finite, the step was left out on every rank. Reading it waits for the device.
        """
        ...

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which `module` computes with the averaged weights (`ema`); its own are restored bit for bit.

        Every rank must enter it. `step`, `state` and `load` must not be called inside.
        """
        ...

    def averaged_weights(self) -> dict[str, Tensor] | None:
        """On rank 0 the averaged weights (`ema`) and the buffers by name, in float32; None on the other ranks.

        Every rank must call it. The tensors may be the engine's own: do not change them, and do not keep them beyond
        the next step.
        """
        ...

    def keep_best(self) -> None:
        """Keep a copy of the averaged weights as role `best`, if the engine has that role."""
        ...

    def time_communication(self, stopwatch: Stopwatch) -> None:
        """From now on, measure the time that ranks spend exchanging gradients and weights."""
        ...

    def state(self) -> EngineState:
        """Copies of the pieces that this rank saves; the next call overwrites them."""
        ...

    def load(self, reader: StateReader) -> None:
        """Continue from a logical state; every rank must call it."""
        ...

    def close(self) -> None:
        """Leave the process group."""
        ...


def accumulation_steps(global_batch: int, world_size: int, micro_batch: int) -> tuple[int, int]:
    """(micro-batch, accumulation) such that world_size * micro-batch * accumulation = global batch."""
    share, rest = divmod(global_batch, world_size)
    if rest:
        raise ValueError(
            f"train.global_batch={global_batch} cannot be split evenly over {world_size} ranks; "
            f"use a multiple of {world_size}"
        )
    micro_batch = min(micro_batch or share, share)
    if share % micro_batch:
        raise ValueError(
            f"engine.micro_batch={micro_batch} does not divide a rank's share of {share} samples "
            f"(train.global_batch={global_batch} over {world_size} ranks); use a divisor of {share}"
        )
    return micro_batch, share // micro_batch
