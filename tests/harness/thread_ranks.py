"""Ranks as threads of one process: enough of an engine for work that only sums numbers over ranks."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

from lediflow.engine.group import Group
from lediflow.engine.ranks import Ranks


class ThreadGroup(Group):
    """A rank's side of the messages; every rank must call each of them."""

    def __init__(self, ranks, slots, barrier):
        super().__init__(ranks)
        self.slots, self.barrier = slots, barrier

    def stack(self, values):
        self.slots[self.rank] = values.double()
        self.barrier.wait()
        gathered = torch.stack(self.slots)
        self.barrier.wait()
        return gathered

    def sum(self, values):
        return self.stack(values).sum(0)


class ThreadEngine:
    """The part of an engine that validation and logging use."""

    device = torch.device("cpu")

    def __init__(self, rank, world_size, slots, barrier, module=None, micro_batch=1):
        self.ranks = Ranks(rank=rank, world_size=world_size)
        self.group = ThreadGroup(self.ranks, slots, barrier)
        self.module, self.micro_batch = module, micro_batch

    def averaged(self):
        return contextlib.nullcontext()


def on_thread_ranks(world_size, work, **options):
    """What `work(engine)` returns on each rank."""
    slots, barrier = [None] * world_size, Barrier(world_size, timeout=30)
    engines = [ThreadEngine(rank, world_size, slots, barrier, **options) for rank in range(world_size)]
    with ThreadPoolExecutor(world_size) as pool:
        return [*pool.map(work, engines)]
