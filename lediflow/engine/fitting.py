"""The largest micro-batch that a GPU holds, found by trying before anything is distributed.

A rank's share of the global batch is halved until a trial fits: its forward and backward pass beside as many bytes as
the engine will hold (lediflow.engine.memory). Results do not depend on the micro-batch beyond the rounding of sums, so
a smaller one costs speed alone.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lediflow.errors import UserError

log = logging.getLogger(__name__)

GIB = 2**30
MARGIN = 0.06  # of a GPU's memory, left to fragmentation, kernels' workspaces and messages between GPUs


def fit_micro_batch(
    share: int,
    trial: Callable[[int], None],
    reserve_bytes: int,
    device: torch.device,
    agree: Callable[[int], int] = lambda fitting: fitting,
) -> int:
    """The largest of share, share/2, share/4, ... whose trial fits; `agree` gives the smallest over the ranks.

    `trial(n)` passes n made-up samples forward and backward; 0 is what a rank says where not even one fits.
    """
    if device.type != "cuda":
        return share
    fitting = agree(next((n for n in halves(share) if fits(n, trial, reserve_bytes, device)), 0))
    if not fitting:
        raise UserError(too_large(min(halves(share)), reserve_bytes, device))
    log.info("micro-batches of %d samples fit; gradients accumulate over %d", fitting, share // fitting)
    return fitting


def halves(share: int) -> list[int]:
    """share, share/2, ... as long as they are whole: 96 -> 96, 48, 24, 12, 6, 3."""
    found = [share]
    while found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return found


def fits(samples: int, trial: Callable[[int], None], reserve_bytes: int, device: torch.device) -> bool:
    """Whether the trial passes beside the reserve."""
    try:
        with held_aside(reserve_bytes, device):
            trial(samples)
        return True
    except torch.OutOfMemoryError:
        log.info("micro-batches of %d samples do not fit %s", samples, device)
        return False
    finally:
        free(device)


@contextmanager
def held_aside(reserve_bytes: int, device: torch.device) -> Iterator[None]:
    """Memory that is taken within."""
    _, total = torch.cuda.mem_get_info(device)
    reserve = torch.empty(int(reserve_bytes + MARGIN * total), dtype=torch.uint8, device=device)
    yield
    del reserve


def free(device: torch.device) -> None:
    """Give back what a trial left; a failed one left tensors in its traceback's frames."""
    gc.collect()
    with torch.cuda.device(device):
        torch.cuda.empty_cache()


def too_large(smallest: int, reserve_bytes: int, device: torch.device) -> str:
    _, total = torch.cuda.mem_get_info(device)
    return (
        f"a micro-batch of {smallest} does not fit {device} of {total / GIB:.1f} GiB beside {reserve_bytes / GIB:.1f} "
        "GiB of weights' gradients, optimizer state and averages; use engine.activation_checkpointing=true, "
        "engine=deepspeed with engine.zero=2 or 3 on more GPUs, engine.offload=cpu, or fewer train.ema.sigma_rels; "
        "a global batch with more factors of 2 for each GPU can be cut smaller"
    )
