"""What a run records every `train.log_every_images` images: the events `train` and `ranks`.

`train` (Window) has means over samples and ranks since the last record. They do not depend on how the samples were
split into batches and ranks: everything a stage reports about a batch is added to one vector of sums on the device,
which costs four small kernels and waits for nothing, and the vectors of the ranks are summed once. Besides the stage's
own values it has the speed; times are those of whole steps, without pauses (validation) and the step that compiles:

images_per_second   of the run                      data_wait_share   share of the ranks' time spent waiting for samples
tflops, mfu         of one device (throughput.py)   peak_memory_gib   largest over the ranks so far
corrupt_samples     found by the ranks so far; a sample that two ranks found counts twice

`ranks` (Pace) says how long each rank's steps took and for what; a warning names a rank that stays slow. `compiled`
says once in each start of a compiled run how long its first step took, without waiting for data: most of that is
torch.compile.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from lediflow.engine.protocol import Engine
from lediflow.engine.timings import Slow, Timings, seconds_by_rank, stragglers
from lediflow.stages.protocol import StageLoss
from lediflow.tracking.tracker import Tracker
from lediflow.training.clock import Clock
from lediflow.training.throughput import Throughput

log = logging.getLogger(__name__)

RECORDS_UNTIL_WARNING = 3  # in a row; a rank that is slow once may have a reason

Values = dict[str, Any]
T = TypeVar("T")


class Totals:
    """Sums over the batches of this rank; every rank must add equally many batches."""

    def __init__(self) -> None:
        self.sums: Float64[Tensor, " entries"] | None = None
        # number of samples of a batch, on the device, and on the host
        self.count: Float32[Tensor, "1"] | None = None
        self.count_of = 0

    def add(self, result: StageLoss, is_counted: bool = True) -> None:
        """Add a batch. A batch that is not counted adds zeros, on ranks that have fewer samples than others."""
        entries = self.entries(result)
        if not is_counted:
            entries = torch.zeros_like(entries)  # not a product: 0 x nan is nan
        if self.sums is None:
            self.names = [*result.metrics]
            self.bins = {key: len(bins.sums) for key, bins in result.bins.items()}
            self.sums = torch.zeros_like(entries, dtype=torch.float64)
        self.sums += entries  # converts to float64 in the same kernel

    def entries(self, result: StageLoss) -> Float32[Tensor, " entries"]:
        """The batch's sums in one vector: number of samples, metrics, then sums and counts of the bins."""
        samples = len(result.per_sample)
        if self.count is None or self.count_of != samples:
            self.count = torch.full((1,), float(samples), device=result.per_sample.device)
            self.count_of = samples
        metrics = torch.stack([*result.metrics.values()]) * samples
        return torch.cat([self.count, metrics, *(part for bins in result.bins.values() for part in bins)])

    def with_extra(self, values: list[float]) -> Float64[Tensor, " extra_and_entries"]:
        """`values` followed by this rank's sums, for one message to the others."""
        assert self.sums is not None, "nothing was added"
        return torch.cat([torch.tensor(values, dtype=torch.float64, device=self.sums.device), self.sums])

    def samples(self, total: Float64[Tensor, " entries"]) -> int:
        """Number of samples in a sum over ranks."""
        return int(total[0])

    def means(self, total: Float64[Tensor, " entries"]) -> Values:
        """Means from a sum over ranks, by name: a number per metric, a list per binned value (None: empty bin)."""
        samples, *sums = total[: 1 + len(self.names)].tolist()
        means: Values = {name: value / samples for name, value in zip(self.names, sums, strict=True)}
        rest = total[1 + len(self.names) :]
        for name, bins in self.bins.items():
            both, rest = rest[: 2 * bins].tolist(), rest[2 * bins :]
            means[name] = [
                part / count if count else None for part, count in zip(both[:bins], both[bins:], strict=True)
            ]
        return means


class Excluded(NamedTuple):
    """What a window does not count for its speed."""

    samples: int = 0  # over all ranks
    seconds: float = 0.0
    wait_seconds: float = 0.0


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
        self.wait_seconds = 0.0
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
        """Exclude the time inside from the speed."""
        before = self.seconds()
        yield
        self.started += self.seconds() - before

    def add(self, result: StageLoss) -> None:
        """Count a micro-batch; it does not wait for the device."""
        self.totals.add(result)
        self.has_more = True

    def exclude(self, samples: int) -> None:
        """Leave the samples so far, of all ranks, and the time that they took out of the speed."""
        self.excluded = Excluded(samples, self.seconds() - self.started, self.wait_seconds)
        self.has_more = False

    def record(self, corrupt_samples: int = 0, **last: Any) -> None:
        """Write one event; `last` are values of the last step, recorded unchanged."""
        excluded = self._excluded_now()
        own = [
            self.wait_seconds - excluded.wait_seconds,
            float(corrupt_samples),
            peak_memory_gib(self.engine.device),
        ]
        ranks = self.engine.group.stack(self.totals.with_extra(own))
        waits, corrupt, memory = ranks[:, : len(own)].unbind(1)
        total = ranks[:, len(own) :].sum(0)
        seconds = self.seconds() - self.started - excluded.seconds
        samples = self.totals.samples(total) - excluded.samples
        self.tracker.record(
            "train",
            self.clock.images_seen,
            **self.totals.means(total),
            **last,
            **self._speed(samples / seconds, len(ranks)),
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

    def _excluded_now(self) -> Excluded:
        """Nothing is excluded where nothing else would be left."""
        return self.excluded if self.has_more else Excluded()

    def _begin_next(self) -> None:
        self.totals, self.excluded, self.has_more = Totals(), Excluded(), False
        self.wait_seconds, self.started = 0.0, self.seconds()


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory so far in GiB: of tensors on a GPU, or of this process on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB


class Pace:
    """The timings of a run, gathered once in a while."""

    def __init__(self, engine: Engine, tracker: Tracker) -> None:
        self.engine, self.tracker = engine, tracker
        self.timings = Timings(engine.device)
        self.slow: Counter[tuple[int, str]] = Counter()  # records in a row, by rank and reason
        engine.time_communication(self.timings.communication)

    def end_step(self) -> float:
        """End a step; its duration in seconds."""
        self.timings.end_step()
        return self.timings.steps[-1]["step"]

    @property
    def working_seconds(self) -> float:
        """Seconds of the last step without waiting for data."""
        return self.timings.steps[-1]["step"] - self.timings.steps[-1].get("data", 0.0)

    def record(self, images_seen: int) -> None:
        """Record the quantiles of every rank since the last record, in seconds. Every rank must call it."""
        if not self.timings.steps:
            return
        found = seconds_by_rank(self.engine.group.stack(self.timings.row()))
        self.tracker.record("ranks", images_seen, **found)
        if self.engine.ranks.is_first:
            self._warn(images_seen, stragglers(found))

    def _warn(self, images_seen: int, found: list[Slow]) -> None:
        """Log each slow rank once, when it has been slow for RECORDS_UNTIL_WARNING records."""
        self.slow = Counter({(one.rank, one.words): self.slow[one.rank, one.words] + 1 for one in found})
        lasting = [one for one in found if self.slow[one.rank, one.words] == RECORDS_UNTIL_WARNING]
        if lasting:
            log.warning("at %d images: %s", images_seen, "; ".join(map(str, lasting)))


class Recorder:
    """Records both events of a run. Every rank makes the same calls."""

    def __init__(
        self, engine: Engine, clock: Clock, tracker: Tracker, throughput: Throughput | None = None
    ) -> None:
        self.engine, self.clock, self.tracker = engine, clock, tracker
        self.is_compiling = False
        self.window = Window(engine, clock, tracker, throughput)
        self.pace = Pace(engine, tracker)

    def begin(self) -> None:
        """Time the first step from now on; it compiles, if the engine does."""
        self.is_compiling = bool(self.engine.config.compile)
        self.pace.timings.restart()

    def restart(self) -> None:
        """Drop what was not recorded yet, when a run goes back to a checkpoint."""
        self.window.restart()
        self.pace.timings.restart()

    def waited(self, fetch: Callable[[], T]) -> T:
        """The result of `fetch`; its duration counts as waiting for data."""
        with self.pace.timings.of("data"):
            return self.window.waited(fetch)

    def add(self, result: StageLoss) -> None:
        """Count a micro-batch."""
        self.window.add(result)

    def end_step(self) -> float:
        """End a step; its duration in seconds."""
        seconds = self.pace.end_step()
        if self.is_compiling:
            self._end_compiling()
        return seconds

    def _end_compiling(self) -> None:
        """Report how long the first step took, and leave it out of the speed."""
        self.is_compiling = False
        seconds = self.pace.working_seconds
        self.window.exclude(self.clock.global_batch)
        self.tracker.record("compiled", self.clock.images_seen, seconds=seconds)
        log.info("compiled in %.0f s", seconds)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time inside, which is between two steps, from all timings."""
        with self.window.paused():
            yield
        self.pace.timings.restart_step()

    def record(self, corrupt_samples: int, **last: Any) -> None:
        """Write the events `train` and `ranks`; `last` are values of the last step, recorded unchanged."""
        self.window.record(corrupt_samples, **last)
        self.pace.record(self.clock.images_seen)
