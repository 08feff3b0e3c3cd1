"""Table of the routes, and the choice of a route for a problem."""

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


@torch.compiler.assume_constant_result  # decided during compilation: a graph contains one route
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
    verdict = memory.recall(problem)
    if verdict is not None and (
        verdict.route not in ROUTES or ROUTES[verdict.route].missing(problem) is not None
    ):
        memory.forget(problem)
    can_measure = {name: route for name, route in CANDIDATES.items() if not (is_compiling and route.compiles)}
    return fastest_route(problem, can_measure, memory)


def check_route(name: str) -> None:
    """ValueError for an unknown route."""
    if name != AUTO and name not in ROUTES:
        nearest = get_close_matches(name, ROUTES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else 'use "auto"'
        raise ValueError(f"attention route {name!r}: known are {AUTO}, {', '.join(ROUTES)}; {hint}")
