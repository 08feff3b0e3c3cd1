"""What autograd keeps between forward and backward, weighed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def kept_bytes(run: Callable[[], Any]) -> int:
    """Bytes of all storages that a forward pass leaves for its backward pass, each once, weights included."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held, so that its address stays its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in storages.values())


def kept_bytes_per_image(run: Callable[[int], Any]) -> float:
    """What one more image adds to what `run(batch_size)` keeps: weights, masks and rotations cancel."""
    return (kept_bytes(lambda: run(5)) - kept_bytes(lambda: run(3))) / 2
