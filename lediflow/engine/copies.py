"""Copies of a device's tensors in host memory, made while training goes on.

From a GPU they are queued behind the step that was just launched, into page-locked memory that is kept for the next
time; the caller waits for microseconds, whoever reads the copies waits for their arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class HostCopies:
    """Host memory for one set of tensors; the next `of` overwrites what the last one returned."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Float32 copies, and a function that waits until they hold their values."""
        on_gpu = any(tensor.is_cuda for tensor in tensors.values())
        copies = {name: self._place(name, tensor, on_gpu) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            copies[name].copy_(tensor, non_blocking=True)
        if not on_gpu:
            return copies, lambda: None
        arrived = torch.cuda.Event()
        arrived.record()
        return copies, arrived.synchronize

    def _place(self, name: str, tensor: Tensor, is_pinned: bool) -> Tensor:
        kept = self.kept.get(name)
        if kept is None or kept.shape != tensor.shape:
            kept = torch.empty(tensor.shape, dtype=torch.float32, pin_memory=is_pinned)
            self.kept[name] = kept
        return kept
