"""Chooses the fastest route for a problem: measured once, cached in a file next to the compile cache.

A problem is the token grid, heads, head dim, kernel, dtype, device and direction. The batch size is not part of it; the
measurement uses one that saturates the device. The dense route is never a candidate, because it needs kernel^2 copies
of the keys. FlexAttention is not a candidate during compilation: compiling its backward pass would wait for the
compilation in progress.
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

FILLING_NUMBERS = {"cuda": 2**25, "cpu": 2**15}  # entries of q that saturate a device
REPEATS = 5  # timings, of which the median is taken
CALLS = {"cuda": 4, "cpu": 1}  # calls per timing: enough to hide the launch overhead
# on CPUs, where the first call compiles nothing, a route this many times slower than the best is called only once
HOPELESS = 4
# a route replaces the first candidate only below this fraction of its time: smaller differences are noise
CLEARLY_FASTER = 0.9


def fastest_route(problem: Problem, routes: Mapping[str, Route], memory: Memory) -> str:
    """The name of the fastest route for the problem, from the cache or by measurement."""
    verdict = memory.recall(problem)
    if verdict is None:
        verdict = memory.keep(problem, measure(problem, routes))
        log.info("neighborhood attention, %s: %s", problem, verdict)
    return verdict.route


def measure(problem: Problem, routes: Mapping[str, Route]) -> Verdict:
    """Measure every route that supports the problem (median milliseconds); failing routes are logged and skipped."""
    milliseconds: dict[str, float] = {}
    for name, route in routes.items():
        if route.missing(problem) is not None:
            continue
        try:
            milliseconds[name] = time_route(problem, route, min(milliseconds.values(), default=math.inf))
        except Exception as error:  # a route that fails for any reason is not chosen
            log.warning("neighborhood attention, %s: route %r failed: %s", problem, name, first_line(error))
    if not milliseconds:
        raise ValueError(f"neighborhood attention, {problem}: no route works; tried {', '.join(routes)}")
    first, best = next(iter(milliseconds)), min(milliseconds, key=milliseconds.__getitem__)
    is_clear = milliseconds[best] < CLEARLY_FASTER * milliseconds[first]
    return Verdict(best if is_clear else first, milliseconds)


def time_route(problem: Problem, route: Route, best: float) -> float:
    """Median milliseconds of one call, in training with its backward pass; `best` is the lowest time so far."""
    with (
        warnings.catch_warnings(action="ignore"),  # warnings about slow paths do not matter here
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
    """q, k and v of a batch that saturates the device; the global random state is not changed."""
    shape = (problem.height, problem.width, problem.num_heads, problem.head_dim)
    entries = problem.height * problem.width * problem.num_heads * problem.head_dim
    batch = max(1, FILLING_NUMBERS[problem.device.type] // entries)
    generator = torch.Generator(problem.device).manual_seed(0)
    drawn = [torch.randn(batch, *shape, generator=generator, device=problem.device) for _ in range(3)]
    return [x.to(problem.dtype).requires_grad_(problem.is_training) for x in drawn]


def elapsed(call: Callable[[], None], device: torch.device, calls: int) -> float:
    """Milliseconds per call, averaged over `calls`, including the work on the device."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    synchronize()
    started = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize()
    return 1000 * (time.perf_counter() - started) / calls


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
