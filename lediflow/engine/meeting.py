"""How the ranks of a run come together: a process group, or a sentence that says who did not come.

torch waits for ranks that are not there inside C++, where no signal is heard, for half an hour. Here each rank signs a
list at the first one's and looks at it now and then. torchrun brings its ranks together by itself.
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
TRY_SECONDS = 2.0  # to reach the first rank; between two tries signals are heard


def join_group(ranks: Ranks, backend: str, seconds: float) -> None:
    """Make the default process group; UserError when a rank has not come within `seconds`."""
    os.environ.update(ranks.environment())
    if dist.is_initialized():
        return
    if "TORCHELASTIC_RUN_ID" in os.environ:
        dist.init_process_group(backend)
        return
    store = meet(ranks, seconds)
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world_size)


def meet(ranks: Ranks, seconds: float, clock: Callable[[], float] = time.monotonic) -> dist.Store:
    """A store on which every rank has signed."""
    end = clock() + seconds
    store = _reach_first(ranks, end, clock)
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


def _reach_first(ranks: Ranks, end: float, clock: Callable[[], float]) -> dist.Store:
    """The first rank's list; it may come later than this one."""
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
