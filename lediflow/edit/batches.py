"""Pictures in batches, for tasks that make any number of them."""

from __future__ import annotations

from collections.abc import Iterator

from lediflow.editing.config import InpaintConfig, VaryConfig


def batches(command: VaryConfig | InpaintConfig) -> Iterator[list[int]]:
    """The numbers of the pictures, in batches."""
    for first in range(0, command.count, command.batch_size):
        yield list(range(first, min(first + command.batch_size, command.count)))
