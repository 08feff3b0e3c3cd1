"""Ranks as threads of one process: enough of an engine for what only adds up numbers over ranks."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

from lediflow.engine.ranks import Ranks


class ThreadEngine:
    """A rank's side of the messages; all ranks of a meeting must call each of them."""

    device = torch.device("cpu")

    def __init__(self, rank, world_size, slots, barrier, module=None, micro_batch=1):
        self.ranks = Ranks(rank=rank, world_size=world_size)
        self.slots, self.barrier = slots, barrier
        self.module, self.micro_batch = module, micro_batch

    def gather(self, values):
        self.slots[self.ranks.rank] = values.double()
        self.barrier.wait()
        gathered = torch.stack(self.slots)
        self.barrier.wait()
        return gathered

    def averaged(self):
        return contextlib.nullcontext()

    def sum(self, values):
        return self.gather(values).sum(0)


def on_thread_ranks(world_size, work, **options):
    """What `work(engine)` gives on each rank."""
    slots, barrier = [None] * world_size, Barrier(world_size, timeout=30)
    engines = [ThreadEngine(rank, world_size, slots, barrier, **options) for rank in range(world_size)]
    with ThreadPoolExecutor(world_size) as pool:
        return [*pool.map(work, engines)]
