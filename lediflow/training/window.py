"""Means over samples and ranks since the last record, with throughput and memory.

One event `train`; times are those of whole steps, without pauses (validation):

images_per_second   of the run                      data_wait_share   share of the ranks' time spent waiting for samples
tflops, mfu         of one device (throughput.py)   peak_memory_gib   largest over the ranks so far
corrupt_samples     met by the ranks so far; a sample met by two ranks counts twice
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from lediflow.engine.protocol import Engine
from lediflow.stages.protocol import StageLoss
from lediflow.tracking.tracker import Tracker
from lediflow.training.clock import Clock
from lediflow.training.throughput import Throughput
from lediflow.training.totals import Totals

T = TypeVar("T")


class Window:
    """`add` every micro-batch; `record` writes one event and begins the next window. Every rank must call it."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        tracker: Tracker,
        throughput: Throughput | None = None,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.engine, self.clock, self.tracker = engine, clock, tracker
        self.throughput, self.seconds = throughput, seconds
        self.has_begun = False
        self._begin_next()

    def waited(self, fetch: Callable[[], T]) -> T:
        """The result of `fetch`; its duration counts as waiting for data."""
        before = self.seconds()
        if not self.has_begun:  # building and loading a checkpoint do not count
            self.has_begun, self.started = True, before
        fetched = fetch()
        self.wait_seconds += self.seconds() - before
        return fetched

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside does not count."""
        before = self.seconds()
        yield
        self.started += self.seconds() - before

    def add(self, result: StageLoss) -> None:
        """Count a micro-batch; it does not wait for the device."""
        self.totals.add(result)

    def record(self, corrupt_samples: int = 0, **last: Any) -> None:
        """Write one event; `last` are values of the last step, recorded unchanged."""
        own = [self.wait_seconds, float(corrupt_samples), peak_memory_gib(self.engine.device)]
        ranks = self.engine.group.stack(self.totals.with_extra(own))
        waits, corrupt, memory = ranks[:, : len(own)].unbind(1)
        total = ranks[:, len(own) :].sum(0)
        seconds = self.seconds() - self.started
        self.tracker.record(
            "train",
            self.clock.images_seen,
            **self.totals.means(total),
            **last,
            **self._speed(self.totals.samples(total) / seconds, len(ranks)),
            data_wait_share=float(waits.mean()) / seconds,
            peak_memory_gib=float(memory.max()),
            corrupt_samples=int(corrupt.sum()),
        )
        self._begin_next()

    def restart(self) -> None:
        """Drop the window, when a run goes back to a checkpoint; time counts from the next `waited` on."""
        self._begin_next()
        self.has_begun = False

    def _speed(self, images_per_second: float, devices: int) -> dict[str, float]:
        use = self.throughput.at(images_per_second, devices) if self.throughput else {}
        return {"images_per_second": images_per_second, **use}

    def _begin_next(self) -> None:
        self.totals = Totals()
        self.wait_seconds, self.started = 0.0, self.seconds()


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory so far in GiB: of tensors on a GPU, or of this process on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
