"""Shape of a flow's paths: the straighter they are, the fewer solver steps they need.

straightness   mean over time, samples and entries of ((x_1 - x_0) - v(x_t, t))^2; 0 for straight paths at constant
               speed (Liu et al. 2022, arXiv:2209.03003). The squared error of a single Euler step, in units of pixels
relative       the same divided by the mean square of x_1 - x_0, so that short paths do not count as straighter
curvature      mean over samples of path length / chord length - 1; 0 for straight paths at any speed; a path that ends
               where it began has no chord and is left out

All are 0 for a flow that moves nothing.

Paths are solved finely with the midpoint rule; the averages use its slopes at the middles of the steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers import Velocity
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

STEPS = 16  # curvature of a quarter turn is exact to 1 in 1000; twice as many evaluations


class PathShape(NamedTuple):
    straightness: float
    relative: float
    curvature: float


@torch.no_grad()
def path_shape(
    pipeline: LeDiFlowPipeline,
    config: SamplingConfig,
    count: int,
    *,
    steps: int = STEPS,
    batch_size: int = 64,
) -> PathShape:
    """Averages over the paths of samples 0 ... count - 1."""
    sums = torch.zeros(5, dtype=torch.float64)
    for first in range(0, count, batch_size):
        ids = torch.arange(first, min(first + batch_size, count), device=pipeline.device)
        start = pipeline.start(ids, config)
        sums += path_sums(pipeline.velocity_from(start, config), start.x, steps).cpu()
    off, chord, entries, excess, samples = sums.tolist()
    return PathShape(off / entries, off / chord if chord else 0.0, excess / samples if samples else 0.0)


def path_sums(
    velocity: Velocity, x_0: Float[Tensor, "batch *dims"], steps: int = STEPS
) -> Float[Tensor, "5"]:
    """Sums over the batch: squared deviation, squared chord, entries, length / chord - 1, samples that moved."""
    h, x = 1 / steps, x_0
    slopes = []
    for step in range(steps):
        t = torch.tensor(step * h, device=x.device)
        middle = x + 0.5 * h * velocity(x, t)
        slopes.append(velocity(middle, t + 0.5 * h))
        x = x + h * slopes[-1]
    chord = x - x_0
    off = torch.stack([squared(chord - slope) for slope in slopes]).mean(0)
    length = torch.stack([h * squared(slope).sqrt() for slope in slopes]).sum(0)
    reach = squared(chord).sqrt()
    moved = reach > 0
    excess = (length[moved] / reach[moved] - 1).clamp(min=0)  # negative only by rounding
    entries = off.new_tensor(x_0.numel())
    return torch.stack([off.sum(), reach.square().sum(), entries, excess.sum(), moved.double().sum()])


def squared(x: Float[Tensor, "batch *dims"]) -> Float[Tensor, " batch"]:
    return x.flatten(1).double().square().sum(1)
