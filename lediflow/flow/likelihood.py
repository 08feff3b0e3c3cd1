"""Likelihood of data under a flow, from the prior's density and the divergence of the velocity along the path.

    log p_1(y) = log p_0(x_0) - int_0^1 tr(dv/dx)(x_t, t) dt,      x_1 = y, integrated backwards to x_0

x and the integral are computed together, by any solver. With the learned prior, p_0 is N(mu(z), sigma(z)^2) and the
result is log p(y|z); with N(0, I) it is log p(y). The trace is computed exactly, by one backward pass per dimension, or
estimated without bias (Hutchinson) by e^T (dv/dx) e for probes e with E[e e^T] = 1, one backward pass each. A sample
has the same probes at all times, so that the estimate is a smooth function of time. For evaluation only: the result
has no gradients. It can be called inside no_grad and inference mode.
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
    """Result of log_likelihood."""

    nats: PerSample  # log p(y)
    x_0: Samples  # y mapped to the prior
    nfe: int  # calls of the velocity; each has one backward pass per probe, or per dimension for the exact trace


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
    """log p(y) in nats.

    `probes` for Hutchinson's estimate are draws of `rademacher` or normal ones; `options` are passed to `solve`.
    """
    directions = check_trace(trace, probes, y)

    def joint(state: Float[Tensor, "batch dims_and_one"], t: Tensor) -> Float[Tensor, "batch dims_and_one"]:
        slope, divergence = slope_and_divergence(velocity, unpacked(state, y), t, directions)
        return packed(slope, divergence)

    with torch.inference_mode(False), torch.no_grad():
        # a copy, because autograd does not record inference tensors
        start = packed(y, torch.zeros_like(y.flatten(1)[:, 0]))
        solution = solve(joint, start, solver=solver, t0=1.0, t1=0.0, **options)
    x_0, gained = unpacked(solution.x, y), solution.x[:, -1]  # integral of the divergence from t = 1 to 0
    return LogLikelihood(prior_log_density(x_0) + gained, x_0, solution.nfe)


def rademacher(
    noise: SampleNoise, ids: Int[Tensor, " batch"], shape: tuple[int, ...], *, count: int = 1
) -> Probes:
    """`count` probes of -1 and 1 for each sample, of shape `shape`; these have the smallest variance."""
    return torch.where(noise.uniform(ids, "trace probes", (count, *shape)) < 0.5, -1.0, 1.0)


def bits_per_dimension(
    nats: PerSample, dimensions: int, *, levels_per_unit: float = 127.5
) -> Float[Tensor, " batch"]:
    """Bits per dimension, from log p(y) of images in [-1, 1], where byte values are 1/127.5 apart.

    Add uniform dequantisation noise to the bytes first; otherwise the density can be infinite.
    """
    return math.log2(levels_per_unit) - nats / (dimensions * math.log(2))


def slope_and_divergence(
    velocity: Velocity, x: Samples, t: Tensor, directions: Callable[[], Iterator[Samples]]
) -> tuple[Samples, PerSample]:
    """v(x, t), and the sum over the directions e of e^T (dv/dx) e."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        slope = velocity(x, t).clone()  # clone: not an inference tensor, and not x itself
    divergence = torch.zeros_like(x.flatten(1)[:, 0])
    for e in directions():
        pulled = pulled_back(slope, x, e)
        if pulled is None:
            refuse_unrecorded(velocity, x.detach(), t, slope.detach())
            break  # a velocity that does not depend on x has no divergence
        divergence += (pulled * e).flatten(1).sum(1)
    return slope.detach(), divergence


def pulled_back(slope: Samples, x: Samples, e: Samples) -> Samples | None:
    """e^T (dv/dx); None if autograd recorded no dependence of the slope on x."""
    if not slope.requires_grad:
        return None
    return torch.autograd.grad(slope, x, e, retain_graph=True, allow_unused=True)[0]


def refuse_unrecorded(velocity: Velocity, x: Samples, t: Tensor, slope: Samples) -> None:
    """UnfitVelocityError if the velocity depends on x although autograd recorded no dependence."""
    elsewhere = velocity(x + 0.5 + 0.1 * x.abs(), t)
    if not torch.allclose(elsewhere, slope, rtol=0.0, atol=0.0, equal_nan=True):
        raise UnfitVelocityError(
            "log_likelihood: the velocity depends on x, but autograd recorded nothing, so its divergence cannot be "
            "computed; remove no_grad, inference_mode and detach from the velocity"
        )


def check_trace(trace: str, probes: Probes | None, y: Samples) -> Callable[[], Iterator[Samples]]:
    """The directions e whose e^T (dv/dx) e sum to the trace or its estimate; ValueError for unfit probes."""
    if trace == "exact":
        return lambda: unit_directions(y)
    if trace != "hutchinson":
        raise ValueError(f"trace {trace!r} is unknown; use 'hutchinson' or 'exact'")
    if probes is None or probes.shape[:1] + probes.shape[2:] != y.shape or not probes.numel():
        found = "none" if probes is None else f"shape {tuple(probes.shape)}"
        raise ValueError(
            f"trace='hutchinson' needs probes of shape (batch, probes, *dims) for y of {tuple(y.shape)}, found "
            f"{found}; draw them with rademacher(noise, ids, shape), or use trace='exact'"
        )
    scaled = probes.to(y) / math.sqrt(probes.shape[1])
    return lambda: iter(scaled.unbind(dim=1))


def unit_directions(y: Samples) -> Iterator[Samples]:
    """The unit vectors: 1 at one entry of every sample, for each entry in turn."""
    for place in range(y[0].numel()):
        direction = torch.zeros_like(y.flatten(1))
        direction[:, place] = 1
        yield direction.view_as(y)


def packed(x: Samples, scalar: PerSample) -> Float[Tensor, "batch dims_and_one"]:
    return torch.cat((x.flatten(1), scalar[:, None]), dim=1)


def unpacked(state: Float[Tensor, "batch dims_and_one"], like: Samples) -> Samples:
    return state[:, :-1].reshape(like.shape)
