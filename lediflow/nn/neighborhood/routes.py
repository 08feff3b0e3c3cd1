"""Table of the routes, and the choice of a route for a problem: the named one, or the fastest.

"auto" measures the routes once per problem and caches the result in a file next to the compile cache, for this table:
with a route added, problems are measured again. A problem is the token grid, heads, head dim, kernel, dtype, device and
direction. The batch size is not part of it; the measurement uses one that saturates the device. The dense route is
never a candidate, because it needs kernel^2 copies of the keys. FlexAttention is not a candidate during compilation:
compiling its backward pass would wait for the compilation in progress.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches

import torch

from lediflow.nn.compiler import constant_in_graphs
from lediflow.nn.neighborhood import flex, natten, plain, triton
from lediflow.nn.neighborhood.protocol import Problem, Route, RouteUnavailableError
from lediflow.nn.neighborhood.route_cache import RouteCache, RouteChoice, default_file

log = logging.getLogger(__name__)

# by name, in the order of measurement; a new route is one entry
ROUTES = {
    "dense": Route(plain.dense_attention, plain.missing, is_candidate=False),
    "sdpa": Route(plain.sdpa_attention, plain.missing),
    "triton": Route(triton.attention, triton.missing),
    "natten": Route(natten.attention, natten.missing),
    "flex": Route(flex.attention, flex.missing, compiles=True),
}
AUTO = "auto"
cache = RouteCache(default_file(), ROUTES)

FILLING_NUMBERS = {"cuda": 2**25, "cpu": 2**15}  # entries of q that saturate a device
REPEATS = 5  # timings, of which the median is taken
CALLS = {"cuda": 4, "cpu": 1}  # calls per timing: enough to hide the launch overhead
# on CPUs, where the first call compiles nothing, a route this many times slower than the best is called only once
HOPELESS = 4
# a route replaces the first candidate only below this fraction of its time: smaller differences are noise
CLEARLY_FASTER = 0.9


@constant_in_graphs  # decided during compilation: a graph contains one route
def route_for(
    name: str,
    height: int,
    width: int,
    num_heads: int,
    head_dim: int,
    kernel_size: int,
    dtype: torch.dtype,
    device: torch.device,
    is_training: bool,
    is_compiling: bool,
) -> str:
    """The name of the route to use: `name` itself, or the fastest for "auto"."""
    problem = Problem(height, width, num_heads, head_dim, kernel_size, dtype, device, is_training)
    return fastest(problem, is_compiling) if name == AUTO else named(name, problem)


def named(name: str, problem: Problem) -> str:
    """The named route; RouteUnavailableError if it does not support the problem."""
    check_route(name)
    missing = ROUTES[name].missing(problem)
    if missing is not None:
        raise RouteUnavailableError(
            f'attention route {name!r}, {problem}: {missing}; fix that, or use route "auto"'
        )
    return name


def fastest(problem: Problem, is_compiling: bool) -> str:
    """The route for "auto"; measured again if the cached one is unsupported or no longer exists."""
    choice = cache.recall(problem)
    if choice is not None and (
        choice.route not in ROUTES or ROUTES[choice.route].missing(problem) is not None
    ):
        cache.forget(problem)
    candidates = {
        name: route
        for name, route in ROUTES.items()
        if route.is_candidate and not (is_compiling and route.compiles)
    }
    return fastest_route(problem, candidates, cache)


def check_route(name: str) -> None:
    """ValueError for an unknown route."""
    if name != AUTO and name not in ROUTES:
        nearest = get_close_matches(str(name), ROUTES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else 'use "auto"'
        raise ValueError(f"attention route {name!r}: known are {AUTO}, {', '.join(ROUTES)}; {hint}")


def fastest_route(problem: Problem, routes: Mapping[str, Route], cache: RouteCache) -> str:
    """The name of the fastest route for the problem, from the cache or by measurement."""
    choice = cache.recall(problem)
    if choice is None:
        choice = cache.keep(problem, measure(problem, routes))
        log.info("neighborhood attention, %s: %s", problem, choice)
    return choice.route


def measure(problem: Problem, routes: Mapping[str, Route]) -> RouteChoice:
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
    return RouteChoice(best if is_clear else first, milliseconds)


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
