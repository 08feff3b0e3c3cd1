"""Where each rank's time goes, step by step, and who holds the others up.

`step` is the whole step on the host's clock; `data`, `communication` and other names are parts of it. `work` is what
the rank itself needs: step - data - communication. All ranks take the same time for a step, since they wait for each
other in collectives: only `data` and `work` tell a slow rank from one that waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.engine.stopwatch import CudaStopwatch, HostStopwatch, Stopwatch

PARTS = ("data", "communication")  # of a step, that are not the rank's own work
NAMES = ("step", *PARTS, "work")
QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}
KEPT_STEPS = 256  # of a window; older ones are forgotten
SMALLEST_SHARE = 0.05  # of a step: what is less late than this holds nobody up


class Timings:
    """`of(name)` around what is timed, `end_step` once a step, `row` once a window.

    `communication` is a stopwatch of its own kind on GPUs (stopwatch.py): see `time_calls`.
    """

    def __init__(
        self, device: torch.device | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.clock = clock
        on_gpu = device is not None and device.type == "cuda"
        self.communication: Stopwatch = CudaStopwatch() if on_gpu else HostStopwatch(clock)
        self.restart()

    def restart(self) -> None:
        """Forget the window, and begin the first step of another one now."""
        self.steps: list[dict[str, float]] = []
        self.communication.steps.clear()
        self.parts: dict[str, float] = {}
        self.began = self.clock()

    def restart_step(self) -> None:
        """Begin the step at hand anew: what came between two steps belongs to neither."""
        self.parts, self.began = {}, self.clock()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time the body on the host; several of one step are added up."""
        began = self.clock()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + self.clock() - began

    def end_step(self) -> None:
        """One step is over, the next one begins."""
        now = self.clock()
        self.steps.append(self.parts | {"step": now - self.began})
        self.communication.end_step()
        self.parts, self.began = {}, now
        if len(self.steps) > KEPT_STEPS:
            del self.steps[0], self.communication.steps[0]

    def samples(self) -> dict[str, list[float]]:
        """Seconds of each step of the window, by name. On GPUs call it where the device is waited for anyway."""
        communication = self.communication.seconds()
        steps = [
            step | {"communication": spent} for step, spent in zip(self.steps, communication, strict=True)
        ]
        for step in steps:
            step["work"] = step["step"] - sum(step.get(part, 0.0) for part in PARTS)
        return {name: [step.get(name, 0.0) for step in steps] for name in NAMES}

    def row(self) -> Float[Tensor, " values"]:
        """Quantiles of this rank's window, for `engine.gather` and then `table`; a new window begins."""
        samples = self.samples()
        self.restart()
        quantiles = torch.tensor(list(QUANTILES.values()), dtype=torch.float64)
        seconds = [torch.tensor(samples[name] or [0.0], dtype=torch.float64) for name in NAMES]
        return torch.cat([some.quantile(quantiles) for some in seconds])


def table(gathered: Float[Tensor, "ranks values"]) -> dict[str, list[float]]:
    """`{"data_p50": [seconds of each rank], ...}` of every rank's row: the values of the event `ranks`."""
    keys = [f"{name}_{quantile}" for name in NAMES for quantile in QUANTILES]
    return dict(zip(keys, gathered.T.tolist(), strict=True))


class Slow(NamedTuple):
    """A rank that holds the others up."""

    rank: int
    words: str  # what it needs so long for
    seconds: float  # median of a step
    usual: float  # median of the other ranks

    def __str__(self) -> str:
        spent = f"{1e3 * self.seconds:.0f} ms a step for {self.words}"
        return f"rank {self.rank} takes {spent}, the others {1e3 * self.usual:.0f}"


def stragglers(table: Mapping[str, Sequence[float]], factor: float = 1.5) -> list[Slow]:
    """The ranks that need more than `factor` times the others' median for data or for work."""
    step = median(table["step_p50"])
    found = []
    for name, words in (("data", "waiting for data"), ("work", "its own work")):
        for rank, seconds in enumerate(mine := table[f"{name}_p50"]):
            usual = median([*mine[:rank], *mine[rank + 1 :]] or [seconds])
            if seconds > factor * usual and seconds - usual > SMALLEST_SHARE * step:
                found.append(Slow(rank, words, seconds, usual))
    return found
