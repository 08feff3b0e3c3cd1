"""How the ranks of a run form a process group, or fail with a message that names the ranks that did not join.

torch waits for missing ranks for half an hour inside C++, where no Python signal handler runs. Here each rank registers
in a store at rank 0 and polls it. torchrun has a rendezvous of its own, which is used where it started the ranks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from lediflow.engine.ranks import Ranks
from lediflow.errors import UserError

LOOK_EVERY_SECONDS = 0.05
TRY_SECONDS = 2.0  # timeout of one attempt to reach rank 0; signals are handled between two attempts


def join_group(ranks: Ranks, backend: str, seconds: float) -> None:
    """Make the default process group; UserError if a rank has not joined within `seconds`."""
    os.environ.update(ranks.environment())
    if dist.is_initialized():
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        dist.init_process_group(backend)
        return
    store = rendezvous(ranks, seconds)
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world_size)


def rendezvous(ranks: Ranks, seconds: float, clock: Callable[[], float] = time.monotonic) -> dist.Store:
    """A store in which every rank has registered; UserError if one has not within `seconds`."""
    end = clock() + seconds
    store = _connect(ranks, end, clock)
    store.set(f"here/{ranks.rank}", "1")
    missing = list(range(ranks.world_size))
    while missing := [rank for rank in missing if not store.check([f"here/{rank}"])]:
        if clock() > end:
            names = ", ".join(map(str, missing))
            raise UserError(
                f"rank {names} of {ranks.world_size} did not come within {seconds:.0f} s (engine.join_seconds); "
                "if it was started, its own output says why"
            )
        time.sleep(LOOK_EVERY_SECONDS)
    return store


def _connect(ranks: Ranks, end: float, clock: Callable[[], float]) -> dist.Store:
    """Rank 0's store; rank 0 may start later than this rank."""
    while True:
        try:
            return dist.TCPStore(
                ranks.master_addr,
                ranks.master_port,
                is_master=ranks.is_first,
                timeout=timedelta(seconds=TRY_SECONDS),
                wait_for_workers=False,
            )
        except (dist.DistError, RuntimeError) as error:
            if ranks.is_first:
                raise UserError(
                    f"rank 0 cannot listen at {ranks.master_addr}:{ranks.master_port} ({str(error).splitlines()[0]}); "
                    "set MASTER_PORT to a port that is free on the first node"
                ) from error
            if clock() > end:
                raise UserError(
                    f"rank {ranks.rank} cannot reach rank 0 at {ranks.master_addr}:{ranks.master_port} "
                    f"({str(error).splitlines()[0]}); is it running, and does MASTER_ADDR name its machine?"
                ) from error
            time.sleep(LOOK_EVERY_SECONDS)
