"""Which route serves a problem fastest: measured once, remembered in a file beside the compile cache.

A problem is tokens, heads, head dim, kernel, dtype, device and direction; the batch is not part of it, and the
measurement takes one that fills the device. The oracle is never a candidate: it keeps kernel^2 copies of the
keys. FlexAttention is none while a compiler is at work: its own backward pass would wait for that compiler.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping

import torch

from lediflow.nn.neighborhood.memory import Memory, Verdict
from lediflow.nn.neighborhood.protocol import Problem, Route

log = logging.getLogger(__name__)

FILLING_NUMBERS = {"cuda": 2**25, "cpu": 2**15}  # entries of q that keep a device busy
REPEATS = 5  # laps of which the median counts
CALLS = {"cuda": 4, "cpu": 1}  # in a lap: launching one must not be what is measured
HOPELESS = 4  # times slower than the best: on CPUs, where the first call compiles nothing, it is the only one
CLEARLY_FASTER = 0.9  # of the first candidate's time; less is noise, and one route everywhere is simpler


def fastest_route(problem: Problem, routes: Mapping[str, Route], memory: Memory) -> str:
    """The name of the fastest route that serves the problem, from memory or by measurement."""
    verdict = memory.recall(problem)
    if verdict is None:
        verdict = memory.keep(problem, measure(problem, routes))
        log.info("neighborhood attention, %s: %s", problem, verdict)
    return verdict.route


def measure(problem: Problem, routes: Mapping[str, Route]) -> Verdict:
    """Median milliseconds of every route that serves the problem; those that fail are reported and left out."""
    milliseconds: dict[str, float] = {}
    for name, route in routes.items():
        if route.missing(problem) is not None:
            continue
        try:
            milliseconds[name] = time_route(problem, route, min(milliseconds.values(), default=math.inf))
        except Exception as error:  # a route that breaks is one not to take, whatever broke
            log.warning("neighborhood attention, %s: route %r failed: %s", problem, name, first_line(error))
    if not milliseconds:
        raise ValueError(f"neighborhood attention, {problem}: no route works; tried {', '.join(routes)}")
    first, best = next(iter(milliseconds)), min(milliseconds, key=milliseconds.__getitem__)
    is_clear = milliseconds[best] < CLEARLY_FASTER * milliseconds[first]
    return Verdict(best if is_clear else first, milliseconds)


def time_route(problem: Problem, route: Route, best: float) -> float:
    """Median milliseconds of one call, with its backward pass if the problem is training; `best` is another's."""
    with (
        warnings.catch_warnings(action="ignore"),  # of slow paths: that is what is being found out
        torch.inference_mode(False),
        torch.set_grad_enabled(problem.is_training),
        torch.autocast(problem.device.type, enabled=False),
    ):
        q, k, v = example(problem)

        def call() -> None:
            mixed = route.attention(q, k, v, problem.kernel_size, scale=1.0)
            if problem.is_training:
                torch.autograd.grad(mixed, (q, k, v), mixed.detach())

        first = elapsed(call, problem.device, calls=1)  # compiles, or fails
        if problem.device.type == "cpu" and first > HOPELESS * best:
            return first
        calls = CALLS[problem.device.type]
        return statistics.median(elapsed(call, problem.device, calls) for _ in range(REPEATS))


def example(problem: Problem) -> list[torch.Tensor]:
    """q, k and v of a batch that keeps the device busy; the global random state stays untouched."""
    shape = (problem.height, problem.width, problem.num_heads, problem.head_dim)
    entries = problem.height * problem.width * problem.num_heads * problem.head_dim
    batch = max(1, FILLING_NUMBERS[problem.device.type] // entries)
    generator = torch.Generator(problem.device).manual_seed(0)
    drawn = [torch.randn(batch, *shape, generator=generator, device=problem.device) for _ in range(3)]
    return [x.to(problem.dtype).requires_grad_(problem.is_training) for x in drawn]


def elapsed(call: Callable[[], None], device: torch.device, calls: int) -> float:
    """Milliseconds of a call, from so many of them to the end of their work on the device."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize()
    return 1000 * (time.perf_counter() - started) / calls


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
