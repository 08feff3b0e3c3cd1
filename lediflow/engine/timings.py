"""Where each rank's time goes, step by step, and which rank slows the others down.

`step` is the whole step on the host's clock; `data`, `communication` and other names are parts of it. `work` is the
rank's own part: step - data - communication. All ranks take the same time for a step, since they wait for each other
in collectives: only `data` and `work` distinguish a slow rank from one that waits.

A collective on a GPU returns before it has begun. Two CUDA events around it measure how long it took on the stream;
they are read at the end of a window of steps, so that no step waits for them.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

PARTS = ("data", "communication")  # parts of a step that are not the rank's own work
NAMES = ("step", *PARTS, "work")
QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}
KEPT_STEPS = 256  # steps kept in a window; older ones are dropped
SMALLEST_SHARE = 0.05  # share of a step; a smaller delay does not count


class Timings:
    """The steps of one rank: `of(name)` around a timed part, `end_step` once a step, `row` once a window.

    `communication` is a stopwatch of its own, on GPUs by CUDA events: see `time_calls`.
    """

    def __init__(
        self, device: torch.device | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.clock = clock
        on_gpu = device is not None and device.type == "cuda"
        self.communication: Stopwatch = CudaStopwatch() if on_gpu else HostStopwatch(clock)
        self.restart()

    def restart(self) -> None:
        """Drop the window, and begin the first step of a new one now."""
        self.steps: list[dict[str, float]] = []
        self.communication.steps.clear()
        self.restart_step()

    def restart_step(self) -> None:
        """Restart the measurement of the current step: the time between two steps is not counted."""
        self.communication.restart_step()
        self.parts: dict[str, float] = {}
        self.began = self.clock()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time the body on the host's clock; several bodies of one step are added."""
        began = self.clock()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + self.clock() - began

    def end_step(self) -> None:
        """End a step and begin the next one."""
        now = self.clock()
        self.steps.append(self.parts | {"step": now - self.began})
        self.communication.end_step()
        self.parts, self.began = {}, now
        if len(self.steps) > KEPT_STEPS:
            del self.steps[0], self.communication.steps[0]

    def samples(self) -> dict[str, list[float]]:
        """Seconds of each step of the window, by name. It waits for the GPU."""
        communication = self.communication.seconds()
        steps = [
            step | {"communication": spent} for step, spent in zip(self.steps, communication, strict=True)
        ]
        for step in steps:
            step["work"] = step["step"] - sum(step.get(part, 0.0) for part in PARTS)
        return {name: [step.get(name, 0.0) for step in steps] for name in NAMES}

    def row(self) -> Float[Tensor, " values"]:
        """Quantiles of this rank's window in seconds, for `seconds_by_rank`; a new window begins."""
        samples = self.samples()
        self.restart()
        quantiles = torch.tensor(list(QUANTILES.values()), dtype=torch.float64)
        seconds = [torch.tensor(samples[name] or [0.0], dtype=torch.float64) for name in NAMES]
        return torch.cat([some.quantile(quantiles) for some in seconds])


def seconds_by_rank(gathered: Float[Tensor, "ranks values"]) -> dict[str, list[float]]:
    """`{"data_p50": [seconds of each rank], ...}` from the rows of all ranks: the values of the event `ranks`."""
    keys = [f"{name}_{quantile}" for name in NAMES for quantile in QUANTILES]
    return dict(zip(keys, gathered.T.tolist(), strict=True))


class Slow(NamedTuple):
    """A rank that slows the others down."""

    rank: int
    words: str  # what takes it so long
    seconds: float  # median of a step
    usual: float  # median of the other ranks

    def __str__(self) -> str:
        spent = f"{1e3 * self.seconds:.0f} ms a step for {self.words}"
        return f"rank {self.rank} takes {spent}, the others {1e3 * self.usual:.0f}"


def stragglers(seconds_of: Mapping[str, Sequence[float]], factor: float = 1.5) -> list[Slow]:
    """Ranks that need more than `factor` times the median of the others for data or for work."""
    step = median(seconds_of["step_p50"])
    found = []
    for name, words in (("data", "waiting for data"), ("work", "its own work")):
        for rank, seconds in enumerate(of_ranks := seconds_of[f"{name}_p50"]):
            usual = median([*of_ranks[:rank], *of_ranks[rank + 1 :]] or [seconds])
            if seconds > factor * usual and seconds - usual > SMALLEST_SHARE * step:
                found.append(Slow(rank, words, seconds, usual))
    return found


class Stopwatch(Protocol):
    """Adds up the timed spans of each step; `steps` has one entry per finished step."""

    steps: list[Any]
    is_running: bool  # inside a timed call, so that nested calls count once

    def start(self) -> Any: ...

    def stop(self, started: Any) -> None: ...

    def restart_step(self) -> None:
        """Drop the spans of the step that has not ended."""
        ...

    def end_step(self) -> None: ...

    def seconds(self) -> list[float]:
        """Seconds of each finished step."""
        ...


class HostStopwatch:
    """Times spans on the host's clock."""

    is_running = False

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.steps: list[float] = []
        self.current = 0.0

    def start(self) -> float:
        return self.clock()

    def stop(self, started: float) -> None:
        self.current += self.clock() - started

    def restart_step(self) -> None:
        self.current = 0.0

    def end_step(self) -> None:
        self.steps.append(self.current)
        self.current = 0.0

    def seconds(self) -> list[float]:
        return list(self.steps)


class CudaStopwatch:
    """Times spans by pairs of events on the current CUDA stream; `seconds` waits for events still to come."""

    is_running = False

    def __init__(self, make_event: Callable[[], Any] | None = None) -> None:
        self.make_event = make_event or functools.partial(torch.cuda.Event, enable_timing=True)
        self.steps: list[list[tuple[Any, Any]]] = []
        self.current: list[tuple[Any, Any]] = []

    def start(self) -> Any:
        return self._happening()

    def stop(self, started: Any) -> None:
        self.current.append((started, self._happening()))

    def restart_step(self) -> None:
        self.current = []

    def end_step(self) -> None:
        self.steps.append(self.current)
        self.current = []

    def seconds(self) -> list[float]:
        for _, end in itertools.chain.from_iterable(self.steps):
            end.synchronize()  # each of them: they may be on several streams
        return [sum(start.elapsed_time(end) for start, end in step) / 1e3 for step in self.steps]

    def _happening(self) -> Any:
        event = self.make_event()
        event.record()
        return event


class TimedWork:
    """The handle of an asynchronous collective; only the time spent waiting for it counts."""

    def __init__(self, work: Any, stopwatch: Stopwatch) -> None:
        self._work, self._stopwatch = work, stopwatch

    def wait(self, *arguments: Any, **options: Any) -> Any:
        with running(self._stopwatch):
            return self._work.wait(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


@contextmanager
def running(stopwatch: Stopwatch) -> Iterator[None]:
    """Time the body, unless it is inside a timed call."""
    if stopwatch.is_running:
        yield
        return
    stopwatch.is_running = True
    started = stopwatch.start()
    try:
        yield
    finally:
        stopwatch.stop(started)
        stopwatch.is_running = False


def timed(call: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    """`call`, timed; where it returns a handle (`async_op=True`), waiting for it is timed too."""

    @functools.wraps(call)
    def run(*arguments: Any, **options: Any) -> Any:
        with running(stopwatch):
            result = call(*arguments, **options)
        return TimedWork(result, stopwatch) if hasattr(result, "wait") else result

    run.untimed = call  # type: ignore[attr-defined]
    return run


def time_calls(owner: Any, names: Sequence[str], stopwatch: Stopwatch) -> None:
    """Replace functions of an object or module by timed ones; names that it lacks are skipped.

    A second call replaces the stopwatch of the first.
    """
    for name in names:
        if callable(call := getattr(owner, name, None)):
            setattr(owner, name, timed(getattr(call, "untimed", call), stopwatch))
