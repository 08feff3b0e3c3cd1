"""When pictures are made: their options, the milestones (images seen), and the limit on the time that they take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from lediflow.ranges import bounded
from lediflow.training.clock import Clock

FIRST_IMAGES = 1_024  # the first milestone; a power of two
# What the first pictures are assumed to take: as long as training on this many images, and this many seconds.
FIRST_COST_IMAGES, FIRST_COST_SECONDS = 64, 0.5


@dataclass(kw_only=True)
class PicturesConfig:
    """Pictures from the averaged weights while a run trains. They change nothing that it learns."""

    # pictures at 1024, 2048, 4096, ... images up to this number, at its multiples, and at the end; 0: none
    every_images: int = bounded(1_048_576, at_least=0)
    # largest share of the training time; pictures that would exceed it are put off; 1: no limit
    time_share: float = bounded(0.02, above=0, at_most=1)
    # stage=flow: run of a latent sampler, whose latents the samples start from; null: latents of held-out images
    sampler: str | None = None
    # stage=latent_sampler: run of a flow that makes images of the samples; null: the means of their priors
    flow: str | None = None
    # weights of the codec that encoded the data, which stay on the device; null: latents are shown as colours
    codec_path: str | None = None


def is_due(clock: Clock, every_images: int) -> bool:
    """Whether the last batch crossed a milestone: a power of two below `every_images`, or a multiple of it."""
    if not every_images:
        return False
    power = 1 << (clock.images_seen.bit_length() - 1)
    is_new_power = clock.images_seen - clock.global_batch < power and FIRST_IMAGES <= power < every_images
    return is_new_power or clock.is_due(every_images)


class TimeLimit:
    """The time that pictures may take, as a share of the time since `begin`, which includes theirs.

    Pictures are assumed to take as long as the last ones did, by the median of three: one may have waited for a disk.
    """

    def __init__(self, share: float, seconds: Callable[[], float] = time.monotonic) -> None:
        self.share, self.seconds = share, seconds
        self.began: tuple[float, int] | None = None
        self.spent = 0.0
        self.last: deque[float] = deque(maxlen=3)

    def begin(self, images_seen: int) -> None:
        """Begin to count the time of training, unless that was done."""
        self.began = self.began or (self.seconds(), images_seen)

    def allows_pictures(self, images_seen: int) -> bool:
        """Whether pictures made now keep the share."""
        return self.share >= 1 or self.spent + self._assumed(images_seen) <= self.share * self._elapsed()

    def note(self, seconds: float) -> None:
        """Pictures took this long."""
        self.spent += seconds
        self.last.append(seconds)

    @property
    def share_spent(self) -> float:
        """Share of the time that pictures took so far."""
        return self.spent / max(self._elapsed(), self.spent, 1e-9)

    def _elapsed(self) -> float:
        return self.seconds() - self.began[0] if self.began else 0.0

    def _assumed(self, images_seen: int) -> float:
        if self.last:
            return median(self.last)
        images = images_seen - self.began[1] if self.began else 0
        return FIRST_COST_SECONDS + FIRST_COST_IMAGES * self._elapsed() / max(images, 1)
