"""Conditions of a network at the times of a solver: computed together before it starts, not in each evaluation.

The mapping network and the scales of all norms depend on the time, and for some flows on z, but not on x. For a few
images they are a fifth of the launches of an evaluation. Conditions without z are the same in every batch: they are
kept, at addresses that CUDA graphs read, and are computed again when the weights change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lediflow.sampling.runtime.copies import WorkingCopy
from lediflow.sampling.runtime.networks import ConditionedPart

Known = dict[float, Tensor]  # time -> condition, one row for all samples or one for each


class Conditions:
    """The conditions of a network by time; `compiled` computes those with z as `part.conditions` does."""

    def __init__(
        self,
        part: ConditionedPart,
        copied: WorkingCopy,
        compiled: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        self.part, self.compiled = part, compiled or part.conditions
        self.needs_z = getattr(part.model, "condition_depends_on_z", False)
        self.kept: Known = {}  # without z
        # times as tensors: they could not be copied to the device while a CUDA graph is recorded
        self.clocks: dict[tuple[float, ...], Tensor] = {}
        copied.followers.append(self.recompute)

    def at(self, times: Sequence[float], z: Tensor | None) -> Known:
        """The conditions at the times. New times must not come while a CUDA graph is recorded."""
        if self.needs_z:
            return dict(zip(times, self.compiled(self.clock(times), z), strict=True))
        if missing := [time for time in times if time not in self.kept]:
            # a caller's inference mode would forbid `recompute` outside of it
            with torch.inference_mode(False):
                made = self.part.conditions(self.clock(missing))
                self.kept |= {time: row.clone() for time, row in zip(missing, made, strict=True)}
        return {time: self.kept[time] for time in times}

    def clock(self, times: Sequence[float]) -> Tensor:
        """The times as a tensor on the network's device."""
        key = tuple(times)
        if key not in self.clocks:
            device = next(self.part.parameters()).device
            self.clocks[key] = torch.tensor(key, dtype=torch.float32, device=device)
        return self.clocks[key]

    def recompute(self) -> None:
        """Follow the weights, at the same addresses."""
        if self.kept:
            made = self.part.conditions(self.clock(list(self.kept)))
            for kept, row in zip(self.kept.values(), made, strict=True):
                kept.copy_(row)
