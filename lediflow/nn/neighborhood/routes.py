"""The routes by name, and which of them serves a problem."""

from difflib import get_close_matches

import torch

from lediflow.nn.neighborhood import check, dense, flex, natten, sdpa, triton
from lediflow.nn.neighborhood.choice import fastest_route, measure
from lediflow.nn.neighborhood.memory import Memory, default_file
from lediflow.nn.neighborhood.protocol import Problem, Route, RouteUnavailableError
from lediflow.nn.shapes import Heads

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
    if name == AUTO:
        can_measure = {
            name: route for name, route in CANDIDATES.items() if not (is_compiling and route.compiles)
        }
        name = fastest_route(problem, can_measure, memory)
    check_route(name)
    missing = ROUTES[name].missing(problem)
    if missing is not None:
        raise RouteUnavailableError(
            f'attention route {name!r}, {problem}: {missing}; mend that, or use route "auto"'
        )
    return check.replacements.get((name, problem), name)


def check_route(name: str) -> None:
    """Refuse an unknown route."""
    if name != AUTO and name not in ROUTES:
        nearest = get_close_matches(name, ROUTES, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else 'use "auto"'
        raise ValueError(f"attention route {name!r}: known are {AUTO}, {', '.join(ROUTES)}; {hint}")


def replace_if_broken(name: str, problem: Problem, inputs: tuple[Heads, Heads, Heads], scale: float) -> str:
    """The route's own name, or that of the fastest other one if it gives what are no numbers."""
    if check.is_broken(problem, ROUTES[name].attention, inputs, scale):
        others = {other: route for other, route in CANDIDATES.items() if other != name}
        verdict = measure(problem, others)
        memory.replace(problem, verdict)
        check.replace(name, problem, verdict.route)
    return check.replacements.get((name, problem), name)
