"""What an image costs: milliseconds of each part of the chain, and the shape of the flow's paths.

Milliseconds are medians over repeats, after a warm-up:

    latent sampler: w -> z      prior decoder: z -> N(mu, sigma^2) and a draw      flow: the solver      codec: -> image

Short chains are repeated more often, until half a second has passed, because disturbances of the machine weigh more on
them. On a GPU the parts are timed by events in its stream, without waiting in between, so their sum is the time of the
chain; on a CPU by the wall clock. Where a whole chain is one CUDA graph (runtime=compiled, exported), the total is that
of the graph: its parts are measured one by one, take longer alone, and say only which one costs most.

The flow is the most expensive part, and the straighter its paths are, the fewer solver steps it needs:

straightness   mean over time, samples and entries of ((x_1 - x_0) - v(x_t, t))^2; 0 for straight paths at constant
               speed (Liu et al. 2022, arXiv:2209.03003). The squared error of a single Euler step, in units of pixels
relative       the same divided by the mean square of x_1 - x_0, so that short paths do not count as straighter
curvature      mean over samples of path length / chord length - 1; 0 for straight paths at any speed; a path that ends
               where it began has no chord and is left out

All are 0 for a flow that moves nothing. Paths are solved finely with the midpoint rule; the averages use its slopes at
the middles of the steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lediflow.flow.solvers import Velocity, ignores_steps
from lediflow.sampling import LeDiFlowPipeline, SamplingConfig
from lediflow.sampling.options import batches

PARTS = ("latent_sampler", "prior_decoder", "flow", "codec")
FEWEST, MOST = 3, 25  # repeats
ENOUGH_MS = 500.0
CALLS_UNTIL_REPLAYED = 2  # of a CUDA graph: the first runs without one, the second records it
ADAPTIVE_IMAGES = 16  # whose evaluations are counted for an adaptive solver
PATH_STEPS = 16  # curvature of a quarter turn is then exact to 1 in 1000; two evaluations a step


def stage_costs(
    pipeline: LeDiFlowPipeline, config: SamplingConfig, *, batch_size: int = 16
) -> dict[str, dict[str, float]]:
    """Milliseconds per image of each part and in total, for one image at a time ("batch_1") and for `batch_size`."""
    sizes = dict.fromkeys((1, batch_size))
    return {f"batch_{size}": costs_at(pipeline, config, size) for size in sizes}


def costs_at(pipeline: LeDiFlowPipeline, config: SamplingConfig, size: int) -> dict[str, float]:
    """Medians over repeats; the first run is a warm-up and does not count (compilation, caches)."""
    lap(pipeline, config, size)
    is_recorded = pipeline.is_recorded(config)
    if is_recorded:
        for _ in range(CALLS_UNTIL_REPLAYED):
            whole(pipeline, config, size)
    laps: list[dict[str, float]] = []
    taken = 0.0
    while len(laps) < FEWEST or (taken < ENOUGH_MS and len(laps) < MOST):
        parts = lap(pipeline, config, size)
        total = whole(pipeline, config, size) if is_recorded else sum(parts.values())
        laps.append(parts | {"total": total})
        taken += total
    return {part: statistics.median(run[part] for run in laps) / size for part in (*PARTS, "total")}


@torch.no_grad()
def whole(pipeline: LeDiFlowPipeline, config: SamplingConfig, size: int) -> float:
    """Milliseconds of one batch, made as a user makes it."""
    note = marker(pipeline.device)
    marks = [note()]
    pipeline(size, config)
    return spans([*marks, note()])[0]


@torch.no_grad()
def lap(pipeline: LeDiFlowPipeline, config: SamplingConfig, size: int) -> dict[str, float]:
    """Milliseconds of each part for one batch."""
    ids = torch.arange(size, device=pipeline.device)
    note = marker(pipeline.device)
    marks = [note()]
    z = pipeline.latents(ids, config) if pipeline.auxiliary is not None else None
    marks.append(note())
    start = pipeline.start_from(ids, z, config)
    marks.append(note())
    solution = pipeline.integrate(start, config)
    marks.append(note())
    pipeline.decode(solution.x).clamp(-1, 1)
    marks.append(note())
    return dict(zip(PARTS, spans(marks), strict=True))


def marker(device: torch.device) -> Callable[[], Any]:
    """A function that records the time: an event in the device's stream, or the wall clock."""
    if device.type != "cuda":
        return time.perf_counter

    def note() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    return note


def spans(marks: list[Any]) -> list[float]:
    """Milliseconds between the marks; waits until a GPU has reached the last one."""
    pairs = pairwise(marks)
    if isinstance(marks[0], float):
        return [1000 * (after - before) for before, after in pairs]
    marks[-1].synchronize()
    return [before.elapsed_time(after) for before, after in pairs]


def evaluations_per_image(config: SamplingConfig, evaluations_of: Callable[[int], int]) -> int:
    """Evaluations of the flow model for an image, from a function of the number of an image that is made alone.

    An adaptive solver needs another number for each image; of it this is the mean of the first few, rounded.
    """
    is_adaptive = config.steps > 0 and ignores_steps(config.solver)
    return round(statistics.mean(map(evaluations_of, range(ADAPTIVE_IMAGES if is_adaptive else 1))))


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
    steps: int = PATH_STEPS,
    batch_size: int = 64,
) -> PathShape:
    """Averages over the paths of samples 0 ... count - 1."""
    sums = torch.zeros(5, dtype=torch.float64)
    for numbers in batches(count, batch_size):
        ids = torch.tensor(numbers, device=pipeline.device)
        start = pipeline.start(ids, config)
        sums += path_sums(pipeline.velocity_from(start, config), start.x, steps).cpu()
    off, chord, entries, excess, samples = sums.tolist()
    return PathShape(off / entries, off / chord if chord else 0.0, excess / samples if samples else 0.0)


def path_sums(
    velocity: Velocity, x_0: Float[Tensor, " batch *dims"], steps: int = PATH_STEPS
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


def squared(x: Float[Tensor, " batch *dims"]) -> Float[Tensor, " batch"]:
    return x.flatten(1).double().square().sum(1)
