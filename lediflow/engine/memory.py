"""Memory of one rank in training, and the largest micro-batch that fits a GPU.

Bytes by ZeRO stage. P trained parameters on N ranks; w is the size of a weight that computes: 2 where DeepSpeed trains
in bfloat16 (stages 1 to 3), else 4. Autocast (stage 0 and the local engine) keeps float32 weights and casts them on
the way.

    weights     w P        every rank computes with all of them; stage 3 keeps w P / N and gathers the rest
    masters     4 P / N    float32 weights that Adam updates; in stage 0 the weights themselves
    moments     8 P / N    Adam's two, in float32; in stage 0 8 P
    averages    4 P / N    for each average of the weights; in stage 0 4 P
    gradients   w P        from stage 2 on a rank keeps w P / N, each bucket's owner after the bucket is summed

Source: Rajbhandari et al. 2020 (arXiv:1910.02054, figure 1), with what DeepSpeed 0.19 adds: buckets, the float32 copy
of a rank's gradients while Adam steps, and masters of their own in float32 too.

The micro-batch is found by trials before anything is distributed: a rank's share of the global batch is halved until
its forward and backward pass fit next to as many bytes as the engine will hold. On a CPU, where the kernel kills a
process that takes too much, the bytes of its activations are estimated instead. Results do not depend on the
micro-batch beyond the rounding of sums, so a smaller one costs only speed.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lediflow.engine.protocol import EngineConfig
from lediflow.errors import UserError

log = logging.getLogger(__name__)

FLOAT32, BFLOAT16 = 4, 2  # bytes
MOMENTS = 2
GIB = 2**30
HOST_SHARE = 0.75  # share of the free main memory that activations may take in training on a CPU
MARGIN = 0.06  # share of a GPU's memory left for fragmentation, kernel workspaces and NCCL
# gradients summed in one all-reduce; larger buckets are no faster and take more memory
BUCKET_ELEMENTS = 50_000_000
# weights that stage 3 keeps gathered until their next use (stage3_max_live_parameters)
GATHERED_ELEMENTS = 1_000_000_000


@dataclass(frozen=True)
class HeldMemory:
    """Bytes of one rank; all but `host` are on its device."""

    weights: int  # used in the forward pass, the frozen parent's included
    gradients: int
    optimizer: int  # masters and moments
    averages: int
    buffers: int  # buckets, gathered weights, casts: only while a batch passes
    activations: int  # of one micro-batch, until its backward pass
    stepping: int  # float32 gradients, only while Adam steps: activations and buffers are freed then
    host: int  # offloaded state, and the copies from which checkpoints are written

    @property
    def standing(self) -> int:
        """Bytes that are always allocated."""
        return self.weights + self.gradients + self.optimizer + self.averages

    @property
    def peak(self) -> int:
        """Largest number of bytes allocated at once."""
        return self.standing + max(self.buffers + self.activations, self.stepping)


def held(
    parameters: int,
    config: EngineConfig,
    world_size: int,
    *,
    averages: int = 1,
    keeps_best: bool = False,
    frozen: int = 0,
    activations: int = 0,
) -> HeldMemory:
    """Memory of a rank with a resolved configuration; `frozen` are a parent's parameters, `activations` bytes.

    `keeps_best`: the averaged weights of the best validation are kept in host memory.
    """
    zero, ranks = config.zero, max(world_size, 1)
    owned = parameters if zero == 0 else -(-parameters // ranks)
    own_state = FLOAT32 * (MOMENTS + (zero > 0)) * owned
    own_averages = FLOAT32 * averages * owned
    is_offloaded = zero > 0 and config.offload == "cpu"
    return HeldMemory(
        weights=weight_bytes(config) * (owned if zero == 3 else parameters) + FLOAT32 * frozen,
        gradients=gradient_bytes(parameters, owned, config),
        optimizer=0 if is_offloaded else own_state,
        averages=0 if is_offloaded else own_averages,
        buffers=buffer_bytes(parameters, frozen, config),
        activations=activations,
        stepping=0 if zero == 0 or is_offloaded else FLOAT32 * owned,
        host=saved_bytes(parameters, averages + keeps_best) // ranks
        + FLOAT32 * keeps_best * owned
        + is_offloaded * (own_state + own_averages + FLOAT32 * owned),  # gradients are summed there too
    )


def weight_bytes(config: EngineConfig) -> int:
    """Bytes of one weight of the forward pass."""
    return BFLOAT16 if config.zero > 0 and config.precision == "bfloat16" else FLOAT32


def gradient_bytes(parameters: int, owned: int, config: EngineConfig) -> int:
    """Bytes of the gradients between micro-batches."""
    if config.zero < 2:
        return weight_bytes(config) * parameters
    return 0 if config.offload == "cpu" else weight_bytes(config) * owned


def buffer_bytes(parameters: int, frozen: int, config: EngineConfig) -> int:
    """Bytes allocated during a micro-batch, besides its activations."""
    if config.zero == 0:  # autocast's copies wait for the backward pass
        return BFLOAT16 * (parameters + frozen) if config.precision == "bfloat16" else 0
    buckets = weight_bytes(config) * bucket_elements(parameters)
    gathered = weight_bytes(config) * min(parameters, GATHERED_ELEMENTS) if config.zero == 3 else 0
    casts = BFLOAT16 * frozen if config.precision == "bfloat16" else 0
    return buckets + gathered + casts


def bucket_elements(parameters: int) -> int:
    """Gradients of one all-reduce; DeepSpeed allocates the whole bucket (reduce_bucket_size; default 500 million)."""
    return min(parameters, BUCKET_ELEMENTS)


def saved_bytes(parameters: int, averages: int) -> int:
    """Bytes of all slices of a checkpoint: weights, moments and averages in float32."""
    return FLOAT32 * (1 + MOMENTS + averages) * parameters


def reserved_bytes(parameters: int, standing: HeldMemory) -> int:
    """Bytes to reserve while a plain float32 model and its gradients try a micro-batch instead of the engine."""
    return max(0, standing.standing + standing.buffers - 2 * FLOAT32 * parameters)


# --- the micro-batch


class DeviceMemory:
    """The memory of a device, as the trials of a micro-batch use it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __str__(self) -> str:
        return f"{self.device} of {self.total / GIB:.1f} GiB"

    @property
    def total(self) -> int:
        """Bytes that this process may allocate: less than its size after `set_per_process_memory_fraction`."""
        allowed = torch.cuda.get_per_process_memory_fraction(self.device)
        return int(allowed * torch.cuda.mem_get_info(self.device)[1])

    @contextmanager
    def held_aside(self, reserve_bytes: int) -> Iterator[None]:
        """Allocate the reserve, and a margin, inside the context."""
        count = int(reserve_bytes + MARGIN * self.total)
        reserve = torch.empty(count, dtype=torch.uint8, device=self.device)
        yield
        del reserve

    def free(self) -> None:
        """Free the memory of a trial; a failed one left tensors in the frames of its traceback."""
        gc.collect()
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()


def fit_micro_batch(
    share: int,
    trial: Callable[[int], None],
    reserve_bytes: int,
    memory: DeviceMemory,
    agree: Callable[[int], int] = lambda fitting: fitting,
) -> int:
    """The largest of share, share/2, share/4, ... whose trial fits; `agree` gives the smallest over the ranks.

    `trial(n)` passes n made-up samples forward and backward. A rank where nothing fits passes 0 to `agree`. UserError
    where nothing fits.
    """
    fitting = agree(next((n for n in halves(share) if fits(n, trial, reserve_bytes, memory)), 0))
    if not fitting:
        raise UserError(too_large(min(halves(share)), reserve_bytes, memory))
    log.info("micro-batches of %d samples fit; gradients accumulate over %d", fitting, share // fitting)
    return fitting


def fit_host(
    share: int,
    sample_bytes: int,
    free_bytes: int,
    agree: Callable[[int], int] = lambda fitting: fitting,
) -> int:
    """The largest of share, share/2, share/4, ... whose activations probably fit the free memory of a CPU.

    `sample_bytes` are the activations of one sample. Temporary tensors and batches that are loaded ahead take a part of
    the rest. UserError where nothing fits.
    """
    room = HOST_SHARE * free_bytes
    fitting = agree(next((n for n in halves(share) if n * sample_bytes <= room), 0))
    if not fitting:
        smallest = min(halves(share))
        raise UserError(
            f"the activations of a micro-batch of {smallest} samples would take about "
            f"{smallest * sample_bytes / GIB:.1f} GiB, and {free_bytes / GIB:.1f} GiB of memory are free for this "
            "rank; choose a train.global_batch with more factors of 2 per rank, or give engine.micro_batch, which "
            "is not checked"
        )
    if fitting < share:
        log.info(
            "micro-batches of %d samples, for the free memory; gradients accumulate over %d",
            fitting,
            share // fitting,
        )
    return fitting


def halves(share: int) -> list[int]:
    """share, share/2, ... while the halves are integers: 96 -> 96, 48, 24, 12, 6, 3."""
    found = [share]
    while found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return found


def fits(samples: int, trial: Callable[[int], None], reserve_bytes: int, memory: DeviceMemory) -> bool:
    """Whether the trial fits next to the reserve."""
    try:
        with memory.held_aside(reserve_bytes):
            trial(samples)
        return True
    except torch.OutOfMemoryError:
        log.info("micro-batches of %d samples do not fit %s", samples, memory.device)
        return False
    finally:
        memory.free()


def too_large(smallest: int, reserve_bytes: int, memory: DeviceMemory) -> str:
    """The error message where not even the smallest micro-batch fits."""
    return (
        f"a micro-batch of {smallest} does not fit {memory} in addition to {reserve_bytes / GIB:.1f} "
        "GiB of weights' gradients, optimizer state and averages; use engine.activation_checkpointing=true, "
        "engine=deepspeed with engine.zero=2 or 3 on more GPUs, engine.offload=cpu, or fewer train.ema.sigma_rels; "
        "a global batch with more factors of 2 per GPU can be split further"
    )
