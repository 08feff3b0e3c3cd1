"""How one of the models is run: by a solver or by jumps, and with classes or without."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lediflow.errors import UserError
from lediflow.flow.solvers import JUMP, Solution, jump, solve
from lediflow.models.velocity import LatentSampler, VelocityModel
from lediflow.sampling.options import SamplingConfig


def checked(solution: Solution) -> Solution:
    """The solution; ValueError if it is not finite."""
    if solution.finiteness is not None:
        solution.finiteness.check()
    return solution


def run_method(velocity: Callable[..., Tensor], x: Tensor, solver: str, steps: int) -> Solution:
    """x at t = 1, by jumps of a flow map or by a solver; not checked, so that nothing waits for the device."""
    if solver == JUMP:
        return jump(velocity, x, steps=steps, is_checked=False)
    return solve(velocity, x, solver=solver, steps=steps, is_checked=False)


def is_flow_map(model: nn.Module | None) -> bool:
    """Whether a model is a flow map, which has a second time."""
    return getattr(getattr(model, "spec", None), "is_flow_map", False)


def classes_of(model: nn.Module | None) -> int:
    """Number of classes of a velocity or a latent sampler, without "no class"; 0: none, or no model."""
    return getattr(getattr(model, "spec", None), "num_classes", 0)


def common_classes(velocity: VelocityModel, latent_sampler: LatentSampler | None) -> int:
    """Number of classes of a pair of models; each may have none. ValueError if both have, of different numbers."""
    of_flow, of_sampler = classes_of(velocity), classes_of(latent_sampler)
    if of_flow and of_sampler and of_flow != of_sampler:
        raise ValueError(
            f"the flow has {of_flow} classes and the latent sampler {of_sampler}; use models of the same classes"
        )
    return of_flow or of_sampler


def check_method(prefix: str, solver: str, is_map: bool) -> None:
    """UserError for a solver on a flow map, and for jumps of a velocity; `prefix` is that of the options."""
    model = "latent sampler" if prefix else "flow"
    if is_map and solver != JUMP:
        raise UserError(
            f"{prefix}solver={solver}: this {model} is a flow map, which is run by jumps; use {prefix}solver={JUMP} "
            f"{prefix}steps=1 (or 2, or 4{'' if prefix else '; in a grid, grid.solvers=[jump]'}), or leave it out"
        )
    if not is_map and solver == JUMP:
        raise UserError(
            f"{prefix}solver={JUMP}: this {model} is a velocity, which has no jumps; use {prefix}solver=midpoint, or "
            "distil a flow map from its run: stage.objective=flow_map teacher=RUN"
        )


def check_guidance(config: SamplingConfig, velocity: nn.Module, latent_sampler: nn.Module | None) -> None:
    """UserError for guidance of a model without classes."""
    guided = {"guidance": (velocity, "flow"), "latent_guidance": (latent_sampler, "latent sampler")}
    for name, (model, called) in guided.items():
        if (scale := getattr(config, name)) != 1 and not classes_of(model):
            raise UserError(
                f"{name}={scale}: there is no {called} that was trained with classes; leave {name} at 1"
            )
