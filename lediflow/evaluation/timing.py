"""Milliseconds per image, as the median over repeats after a warm-up.

On a GPU the clock is read only when the device has finished: launches return long before the work is done.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds per image: the middle, the fastest and the slowest of `repeats` runs."""

    median_ms: float
    fastest_ms: float
    slowest_ms: float
    repeats: int


def milliseconds_per_image(
    make_images: Callable[[], Any],
    *,
    images: int,
    repeats: int = 5,
    warmups: int = 1,
    device: torch.device | str = "cpu",
) -> Timing:
    """Times a call that makes `images` images. Warm-ups take compilation and caches out of the number."""
    for _ in range(warmups):
        make_images()
    laps = [1000 * seconds_taken(make_images, torch.device(device)) / images for _ in range(repeats)]
    return Timing(statistics.median(laps), min(laps), max(laps), repeats)


def seconds_taken(call: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock time until the device has finished what the call asked of it."""
    wait_for(device)
    started = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Returns when the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
