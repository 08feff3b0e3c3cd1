"""Cost of an image: milliseconds of each part of the chain, after a warm-up, as medians over repeats.

    latent sampler: w -> z      prior decoder: z -> N(mu, sigma^2) and a draw      flow: the solver      codec: -> image

Short chains are repeated more often, until half a second has passed, because disturbances of the machine weigh more on
them. On a GPU the parts are timed by events in its stream, without waiting in between, so their sum is the time of the
chain; on a CPU by the wall clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from lediflow.sampling import LeDiFlowPipeline, SamplingConfig

PARTS = ("latent_sampler", "prior_decoder", "flow", "codec")
FEWEST, MOST = 3, 25  # repeats
ENOUGH_MS = 500.0


def stage_costs(
    pipeline: LeDiFlowPipeline, config: SamplingConfig, *, batch_size: int = 16
) -> dict[str, dict[str, float]]:
    """Milliseconds per image of each part and in total, for one image at a time ("batch_1") and for `batch_size`."""
    sizes = dict.fromkeys((1, batch_size))
    return {f"batch_{size}": costs_at(pipeline, config, size) for size in sizes}


def costs_at(pipeline: LeDiFlowPipeline, config: SamplingConfig, size: int) -> dict[str, float]:
    """Medians over repeats; the first run is a warm-up and does not count (compilation, caches)."""
    lap(pipeline, config, size)
    laps: list[dict[str, float]] = []
    taken = 0.0
    while len(laps) < FEWEST or (taken < ENOUGH_MS and len(laps) < MOST):
        laps.append(lap(pipeline, config, size))
        taken += sum(laps[-1].values())
    parts = {part: statistics.median(run[part] for run in laps) / size for part in PARTS}
    return parts | {"total": statistics.median(sum(run.values()) for run in laps) / size}


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
