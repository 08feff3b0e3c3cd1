"""The density that a flow gives to data, from the prior's density and the flow's divergence along the way.

    log p_1(y) = log p_0(x_0) - int_0^1 tr(dv/dx)(x_t, t) dt,      x_1 = y, carried backwards to x_0

x and the integral are carried together, by any solver. With the learned prior, p_0 is N(mu(z), sigma(z)^2) and the
result is log p(y|z); with N(0, I) it is log p(y). The trace is taken exactly, by one backward pass per dimension, or
estimated without bias by probes e with E[e e^T] = 1, one backward pass each (Hutchinson): e^T (dv/dx) e. A sample
keeps its probes all the way, so that the estimate is a smooth function of time. Evaluation only: no gradients come out,
and whether they are wanted around it, no_grad and inference mode included, does not matter.
Source: Chen et al., arXiv:1806.07366 (instantaneous change of variables); Grathwohl et al., arXiv:1810.01367.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lediflow.flow.noise import SampleNoise
from lediflow.flow.solvers import UnfitVelocityError, Velocity, solve

Samples = Float[Tensor, "batch *dims"]
Probes = Float[Tensor, "batch probes *dims"]
PerSample = Float[Tensor, " batch"]


class LogLikelihood(NamedTuple):
    nats: PerSample  # log p(y)
    x_0: Samples  # where y came from
    nfe: int  # calls of the velocity; each with as many backward passes as there are probes, or dimensions


def log_likelihood(
    velocity: Velocity,
    y: Samples,
    prior_log_density: Callable[[Samples], PerSample],
    *,
    trace: Literal["hutchinson", "exact"] = "hutchinson",
    probes: Probes | None = None,
    solver: str = "dopri5",
    **options: Any,
) -> LogLikelihood:
    """log p(y) in nats. Probes, for Hutchinson's trace, are `rademacher` or normal draws; options are `solve`'s."""
    directions = check_trace(trace, probes, y)

    def joint(state: Float[Tensor, "batch dims_and_one"], t: Tensor) -> Float[Tensor, "batch dims_and_one"]:
        slope, divergence = slope_and_divergence(velocity, unpacked(state, y), t, directions)
        return packed(slope, divergence)

    with torch.inference_mode(False), torch.no_grad():
        start = packed(
            y, torch.zeros_like(y.flatten(1)[:, 0])
        )  # a copy: tensors of inference mode record nothing
        solution = solve(joint, start, solver=solver, t0=1.0, t1=0.0, **options)
    x_0, gained = unpacked(solution.x, y), solution.x[:, -1]  # the integral from 1 to 0 of the divergence
    return LogLikelihood(prior_log_density(x_0) + gained, x_0, solution.nfe)


def rademacher(
    noise: SampleNoise, ids: Int[Tensor, " batch"], shape: tuple[int, ...], *, count: int = 1
) -> Probes:
    """`count` probes of -1 and 1 for each sample, of a sample's `shape`: the least variance that probes can have."""
    return torch.where(noise.uniform(ids, "trace probes", (count, *shape)) < 0.5, -1.0, 1.0)


def bits_per_dimension(
    nats: PerSample, dimensions: int, *, levels_per_unit: float = 127.5
) -> Float[Tensor, " batch"]:
    """Bits to code a byte of an image, from log p(y) of the image in [-1, 1], whose bytes are 1/127.5 apart.

    The bytes should have been given noise that fills the gap between them; else the density may be infinite.
    """
    return math.log2(levels_per_unit) - nats / (dimensions * math.log(2))


def slope_and_divergence(
    velocity: Velocity, x: Samples, t: Tensor, directions: Callable[[], Iterator[Samples]]
) -> tuple[Samples, PerSample]:
    """v(x, t), and the sum over the directions e of e^T (dv/dx) e."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        slope = velocity(x, t).clone()  # out of inference mode, and never x itself
    divergence = torch.zeros_like(x.flatten(1)[:, 0])
    for e in directions():
        pulled = pulled_back(slope, x, e)
        if pulled is None:
            refuse_unrecorded(velocity, x.detach(), t, slope.detach())
            break  # a velocity that does not depend on x has no divergence
        divergence += (pulled * e).flatten(1).sum(1)
    return slope.detach(), divergence


def pulled_back(slope: Samples, x: Samples, e: Samples) -> Samples | None:
    """e^T (dv/dx); None: no way from the slope to x was recorded."""
    if not slope.requires_grad:
        return None
    return torch.autograd.grad(slope, x, e, retain_graph=True, allow_unused=True)[0]


def refuse_unrecorded(velocity: Velocity, x: Samples, t: Tensor, slope: Samples) -> None:
    """Stop at a velocity that changes with x although its gradient says that it does not."""
    elsewhere = velocity(x + 0.5 + 0.1 * x.abs(), t)
    if not torch.allclose(elsewhere, slope, rtol=0.0, atol=0.0, equal_nan=True):
        raise UnfitVelocityError(
            "log_likelihood: the velocity depends on x, but nothing of that was recorded, so its divergence is not to "
            "be had; take no_grad, inference_mode and detach out of the velocity"
        )


def check_trace(trace: str, probes: Probes | None, y: Samples) -> Callable[[], Iterator[Samples]]:
    """The directions whose quadratic forms sum to the trace, or to its estimate."""
    if trace == "exact":
        return lambda: unit_directions(y)
    if trace != "hutchinson":
        raise ValueError(f"trace {trace!r} is unknown; use 'hutchinson' or 'exact'")
    if probes is None or probes.shape[:1] + probes.shape[2:] != y.shape or not probes.numel():
        found = "none" if probes is None else f"shape {tuple(probes.shape)}"
        raise ValueError(
            f"trace='hutchinson' needs probes of shape (batch, probes, *dims) beside y of {tuple(y.shape)}, found "
            f"{found}; draw them with rademacher(noise, ids, shape), or use trace='exact'"
        )
    scaled = probes.to(y) / math.sqrt(probes.shape[1])
    return lambda: iter(scaled.unbind(dim=1))


def unit_directions(y: Samples) -> Iterator[Samples]:
    """1 at one place of every sample, place after place."""
    for place in range(y[0].numel()):
        direction = torch.zeros_like(y.flatten(1))
        direction[:, place] = 1
        yield direction.view_as(y)


def packed(x: Samples, scalar: PerSample) -> Float[Tensor, "batch dims_and_one"]:
    return torch.cat((x.flatten(1), scalar[:, None]), dim=1)


def unpacked(state: Float[Tensor, "batch dims_and_one"], like: Samples) -> Samples:
    return state[:, :-1].reshape(like.shape)
