"""Training time, counted in images, and the learning rate as a function of it.

Schedules and intervals keep their meaning when the number of GPUs changes. The learning rate rises linearly, stays
constant, and falls by a cosine at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lediflow.ranges import bounded

SCHEDULE_POINTS = 1000  # of a long run, where its learning rate is computed to find the highest


@dataclass
class Clock:
    """`images_seen` grows by the global batch; the run ends at the first whole batch that reaches `images`."""

    images: int
    global_batch: int
    images_seen: int = 0

    @property
    def is_finished(self) -> bool:
        return self.images_seen >= self.images

    def advance(self) -> None:
        self.images_seen += self.global_batch

    def is_due(self, every_images: int) -> bool:
        """Whether the last batch crossed a multiple of `every_images` (0: never)."""
        if every_images <= 0:
            return False
        return self.images_seen // every_images > (self.images_seen - self.global_batch) // every_images


@dataclass(kw_only=True)
class ScheduleConfig:
    """The learning rate over the run, as a share of the full rate."""

    # the rate rises linearly from zero over this many images; a short warm-up makes AdamW's first steps erratic
    warmup_images: int = bounded(10_000, at_least=0)
    # the rate falls over this many images at the end of the run; 0: it stays constant
    decay_images: int = bounded(0, at_least=0)
    final_factor: float = bounded(0.0, at_least=0)  # last rate as a share of the full one


def learning_rate_factor(config: ScheduleConfig, images_seen: int, images: int) -> float:
    """Share of the full learning rate for a batch that ends at `images_seen` of a run of `images`, in [0, 1]."""
    warmup = min(1.0, images_seen / config.warmup_images) if config.warmup_images else 1.0
    return warmup * _decay(config, max(0, images - images_seen))


def highest_factor(config: ScheduleConfig, images: int, global_batch: int) -> float:
    """Largest share of the full learning rate in a run of `images`: below 1 where warm-up and decay overlap."""
    steps = -(-images // global_batch)
    moments = range(global_batch, (steps + 1) * global_batch, global_batch * -(-steps // SCHEDULE_POINTS))
    return max(learning_rate_factor(config, images_seen, images) for images_seen in moments)


def _decay(config: ScheduleConfig, images_left: int) -> float:
    if images_left >= config.decay_images:
        return 1.0
    height = 0.5 * (1 - math.cos(math.pi * images_left / config.decay_images))
    return config.final_factor + (1 - config.final_factor) * height
