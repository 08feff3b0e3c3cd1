"""What a flow map learns from the paths of a frozen teacher, and the loss of it.

A flow map is the mean velocity u(x, t, s) between two times of a path (lediflow/flow/solvers/jumps.py). For the states
x_0, ..., x_N of a path that a teacher's velocity is integrated along,

    u(x_i, t_i, t_j) = (x_j - x_i) / (t_j - t_i)        for all i < j

is plain regression on known numbers, without derivatives of the network. All states of a path cost 2 N calls of the
teacher and give N (N + 1) / 2 pairs.

For comparison, the Eulerian identity of MeanFlow gives a target at any point of space and time, with a derivative of
the map itself along a path:

    u = v + (s - t) du/dt,        du/dt = du/dx v + du/dt        (+, because data are at t = 1)

Sources: regression on a teacher's paths: arXiv:2509.24526 (CMT), arXiv:2511.13019; adaptive weights and MeanFlow:
arXiv:2505.13447.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lediflow.flow.losses import PerSample
from lediflow.flow.noise import Ids, SampleNoise
from lediflow.flow.path import align
from lediflow.flow.solvers import Velocity

Times = Float[Tensor, "batch times"]
LARGEST_SHIFT = 0.4  # of the times of a path, in steps: neighbours stay a fifth of a step apart
# share of the velocity's loss below which the weight of a map's error grows no more
RESIDUAL_SHARE = 0.1


def midpoint_path(
    velocity: Velocity, x_0: Float[Tensor, " batch *dims"], times: Times
) -> Float[Tensor, " times batch *dims"]:
    """The states of each sample at its own times, by the midpoint rule; t of velocity(x, t) has shape (batch,)."""
    states = [x_0]
    for start, end in zip(times.T[:-1], times.T[1:], strict=True):
        x, step = states[-1], align(end - start, x_0)
        middle = x + 0.5 * step * velocity(x, start)
        states.append(x + step * velocity(middle, 0.5 * (start + end)))
    return torch.stack(states)


def draw_path_times(noise: SampleNoise, ids: Ids, steps: int) -> Times:
    """steps + 1 rising times from 0 to 1, equally spaced; each one between is shifted by up to LARGEST_SHIFT steps.

    So a map learns jumps of any length between any times, and those from 0 to 1 exactly.
    """
    shift = LARGEST_SHIFT * (2 * noise.uniform(ids, "path times", (steps - 1,)) - 1)
    inner = (torch.arange(1, steps, device=ids.device) + shift) / steps
    start = inner.new_zeros(len(ids), 1)
    return torch.cat((start, inner, start + 1), dim=1)


def draw_pairs(
    noise: SampleNoise, ids: Ids, steps: int, count: int
) -> tuple[Int64[Tensor, "count batch"], Int64[Tensor, "count batch"]]:
    """`count` pairs i < j of places on a path for each sample: the whole path (0, steps), then any pair, all alike."""
    known = torch.triu_indices(steps + 1, steps + 1, offset=1, device=ids.device)
    drawn = (noise.uniform(ids, "path pairs", (count,)) * known.shape[1]).long().T
    drawn[0] = steps - 1  # of the pairs (0, 1), (0, 2), ..., (0, steps), (1, 2), ...
    return known[0][drawn], known[1][drawn]


def draw_interval(noise: SampleNoise, ids: Ids) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Times t < s of each sample: two uniform draws in order."""
    first, second = noise.uniform(ids, "interval", (2,)).unbind(1)
    return torch.minimum(first, second), torch.maximum(first, second)


def eulerian_target(
    velocity: Float[Tensor, " batch *dims"],
    derivative: Float[Tensor, " batch *dims"],
    t: Float[Tensor, " batch"],
    s: Float[Tensor, " batch"],
) -> Float[Tensor, " batch *dims"]:
    """v + (s - t) du/dt: what u(x, t, s) is, given its derivative along the path through x, at t."""
    return velocity + align(s - t, velocity) * derivative


def adaptive_loss(error: PerSample, scale: PerSample) -> PerSample:
    """error scale / (error + RESIDUAL_SHARE scale), the denominator without gradient.

    The error of a map falls by orders of magnitude while it is trained. Its weight grows as it falls, so that it keeps
    counting as much as `scale`, the loss of the velocity; below a share of that it grows no more. A weight without this
    end lets rounding and noise of the map outweigh the velocity.
    """
    scale = scale.detach()
    smallest = torch.finfo(scale.dtype).tiny
    return error * scale / (error.detach() + RESIDUAL_SHARE * scale).clamp(min=smallest)
