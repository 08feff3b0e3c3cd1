"""Training time, counted in images: schedules and intervals keep their meaning when the number of GPUs changes."""

from __future__ import annotations

from dataclasses import dataclass


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
