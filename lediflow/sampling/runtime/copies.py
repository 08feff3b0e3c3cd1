"""Copies of models to compute with: weights of matrix products in the precision, brought up to date in place.

Compiled code and CUDA graphs read weights at fixed addresses. A copy keeps its addresses while the model that it was
made from is trained, reloaded, moved or swapped for an average; `refresh` copies what has changed since. Changes are
seen by PyTorch's version counters, which writes through `.data` do not touch: after those, call `refresh(force=True)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from lediflow.nn.joined_norms import join_norms
from lediflow.nn.low_precision import to_bfloat16, to_float8


class WorkingCopy:
    """A copy of a model's structure and weights for a precision, with its norms joined."""

    @torch.inference_mode(False)  # a caller's inference mode would forbid `refresh` outside of it
    def __init__(self, source: nn.Module, precision: str) -> None:
        self.source = source
        self.module = copy.deepcopy(source).requires_grad_(False)
        large = to_float8(self.module) if precision == "float8" else {}
        if precision != "float32":
            to_bfloat16(self.module)
        self.layers_in_float8 = len(large)
        own = named_tensors_of(self.module)
        self.targets = [large.get(name) or own[name] for name in named_tensors_of(source)]
        join_norms(self.module)
        self.places = places_of(source)
        self.seen = self.versions()
        self.followers: list[Callable[[], None]] = []  # called when the weights have changed

    def versions(self) -> list[tuple[int, int]]:
        """What changes with the weights; called for every batch, so it walks no modules."""
        found = [tensors[name] for tensors, name in self.places]
        return [(tensor.data_ptr(), tensor._version) for tensor in found if tensor is not None]

    @torch.no_grad()
    def refresh(self, force: bool = False) -> None:
        """Copy the weights of the source if any has changed."""
        if (found := self.versions()) == self.seen and not force:
            return
        for source, target in zip(named_tensors_of(self.source).values(), self.targets, strict=True):
            target.copy_(source)
        for follow in self.followers:
            follow()
        self.seen = found


def places_of(module: nn.Module) -> list[tuple[Mapping[str, torch.Tensor | None], str]]:
    """Where the module's parameters and buffers are found: a dictionary of a submodule, and a name in it."""
    return [
        (tensors, name)
        for part in module.modules()
        for tensors in (part._parameters, part._buffers)
        for name in tensors
    ]


def named_tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])
