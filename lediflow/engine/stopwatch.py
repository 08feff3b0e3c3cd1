"""How long calls take that others do for us: on the host's clock, or on a GPU's own.

A collective on a GPU returns before it has begun. Two CUDA events around it tell how long it took on the stream, and
are read when a window of steps is over, without making anyone wait meanwhile.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class Stopwatch(Protocol):
    """Adds up spans of a step. `steps` has one entry for each step that has ended."""

    steps: list[Any]
    is_running: bool  # within a timed call: one that calls another one counts once

    def start(self) -> Any: ...

    def stop(self, started: Any) -> None: ...

    def end_step(self) -> None: ...

    def seconds(self) -> list[float]:
        """Of each step that has ended."""
        ...


class HostStopwatch:
    """The time that the calling thread spends."""

    is_running = False

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.steps: list[float] = []
        self.current = 0.0

    def start(self) -> float:
        return self.clock()

    def stop(self, started: float) -> None:
        self.current += self.clock() - started

    def end_step(self) -> None:
        self.steps.append(self.current)
        self.current = 0.0

    def seconds(self) -> list[float]:
        return list(self.steps)


class CudaStopwatch:
    """Pairs of events on the current stream; `seconds` waits for those that have not happened yet."""

    is_running = False

    def __init__(self, make_event: Callable[[], Any] | None = None) -> None:
        self.make_event = make_event or functools.partial(torch.cuda.Event, enable_timing=True)
        self.steps: list[list[tuple[Any, Any]]] = []
        self.current: list[tuple[Any, Any]] = []

    def start(self) -> Any:
        return self._happening()

    def stop(self, started: Any) -> None:
        self.current.append((started, self._happening()))

    def end_step(self) -> None:
        self.steps.append(self.current)
        self.current = []

    def seconds(self) -> list[float]:
        for _, end in itertools.chain.from_iterable(self.steps):
            end.synchronize()  # each: they may lie on several streams
        return [sum(start.elapsed_time(end) for start, end in step) / 1e3 for step in self.steps]

    def _happening(self) -> Any:
        event = self.make_event()
        event.record()
        return event


class TimedWork:
    """The handle of an asynchronous call; only waiting for it counts."""

    def __init__(self, work: Any, stopwatch: Stopwatch) -> None:
        self._work, self._stopwatch = work, stopwatch

    def wait(self, *arguments: Any, **options: Any) -> Any:
        with running(self._stopwatch):
            return self._work.wait(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


@contextmanager
def running(stopwatch: Stopwatch) -> Iterator[None]:
    """Count the body, unless it is being counted already."""
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
    """The same function, timed; where it returns a handle (`async_op=True`), the wait for it is timed too."""

    @functools.wraps(call)
    def run(*arguments: Any, **options: Any) -> Any:
        with running(stopwatch):
            result = call(*arguments, **options)
        return TimedWork(result, stopwatch) if hasattr(result, "wait") else result

    run.untimed = call  # type: ignore[attr-defined]
    return run


def time_calls(owner: Any, names: Sequence[str], stopwatch: Stopwatch) -> None:
    """Replace those functions that an object or module has by timed ones; once more: by newly timed ones."""
    for name in names:
        if callable(call := getattr(owner, name, None)):
            setattr(owner, name, timed(getattr(call, "untimed", call), stopwatch))
