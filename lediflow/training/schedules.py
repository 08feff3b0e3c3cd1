"""Learning rate on the image clock: linear warm-up, a constant stretch, cosine decay at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lediflow.ranges import bounded


@dataclass(kw_only=True)
class ScheduleConfig:
    warmup_images: int = bounded(
        10_000, at_least=0
    )  # linear rise from zero; too short and AdamW's first steps are wild
    decay_images: int = bounded(
        0, at_least=0
    )  # the last stretch of the run, over which the rate falls; 0 keeps it constant
    final_factor: float = bounded(0.0, at_least=0)  # where the decay ends, as a share of the full rate


def learning_rate_factor(config: ScheduleConfig, images_seen: int, images: int) -> float:
    """Share of the full learning rate for a batch that ends at `images_seen` of a run of `images`, in [0, 1]."""
    warmup = min(1.0, images_seen / config.warmup_images) if config.warmup_images else 1.0
    return warmup * _decay(config, max(0, images - images_seen))


def _decay(config: ScheduleConfig, images_left: int) -> float:
    if images_left >= config.decay_images:
        return 1.0
    height = 0.5 * (1 - math.cos(math.pi * images_left / config.decay_images))
    return config.final_factor + (1 - config.final_factor) * height
