"""The routes by name, and which of them serves a problem."""

from difflib import get_close_matches

import torch

from lediflow.nn.neighborhood import dense, flex, natten, sdpa, triton
from lediflow.nn.neighborhood.choice import fastest_route
from lediflow.nn.neighborhood.memory import Memory, default_file
from lediflow.nn.neighborhood.protocol import Problem, Route, RouteUnavailableError

ROUTES = {
    "dense": Route(dense.attention, dense.missing),
    "sdpa": Route(sdpa.attention, sdpa.missing),
    "triton": Route(triton.attention, triton.missing),
    "natten": Route(natten.attention, natten.missing),
    "flex": Route(flex.attention, flex.missing, compiles=True),
}
CANDIDATES = {name: route for name, route in ROUTES.items() if name != "dense"}
AUTO = "auto"
memory = Memory(default_file())


@torch.compiler.assume_constant_result  # decided while compiling: a graph contains one route
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
    """The name of the route that serves a problem: the named one, or the fastest for "auto"."""
    problem = Problem(height, width, num_heads, head_dim, kernel_size, dtype, device, is_training)
    return fastest(problem, is_compiling) if name == AUTO else named(name, problem)


def named(name: str, problem: Problem) -> str:
    """A route that was asked for by its name; refused where it cannot serve."""
    check_route(name)
    missing = ROUTES[name].missing(problem)
    if missing is not None:
        raise RouteUnavailableError(
            f'attention route {name!r}, {problem}: {missing}; mend that, or use route "auto"'
        )
    return name


def fastest(problem: Problem, is_compiling: bool) -> str:
    """The route that "auto" takes; one that is remembered but cannot serve, or is no more, is measured anew."""
    verdict = memory.recall(problem)
    if verdict is not None and (
        verdict.route not in ROUTES or ROUTES[verdict.route].missing(problem) is not None
    ):
        memory.forget(problem)
    can_measure = {name: route for name, route in CANDIDATES.items() if not (is_compiling and route.compiles)}
    return fastest_route(problem, can_measure, memory)


def check_route(name: str) -> None:
    """Refuse an unknown route."""
    if name != AUTO and name not in ROUTES:
        nearest = get_close_matches(name, ROUTES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else 'use "auto"'
        raise ValueError(f"attention route {name!r}: known are {AUTO}, {', '.join(ROUTES)}; {hint}")
