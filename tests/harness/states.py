"""A whole logical state out of what ranks would write, for engines to load."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lediflow.engine.protocol import EngineState


class Assembled:
    """All ranks' pieces put together; every element must be there once. A StateReader."""

    def __init__(self, states: Sequence[EngineState]) -> None:
        self.steps = states[0].steps
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.flat: dict[str, Tensor] = {}
        for state in states:
            state.ready()
            for key, piece in state.tensors.items():
                start, shape = state.extents[key]
                whole = self.flat.setdefault(key, torch.full((math.prod(shape),), torch.nan))
                assert whole[start : start + len(piece)].isnan().all(), f"{key} is there twice"
                whole[start : start + len(piece)] = piece
                self.shapes[key] = shape
        assert not [key for key, whole in self.flat.items() if whole.isnan().any()]

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Tensor:
        return self.flat[key][start:stop]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Whole tensors in their own shapes."""
        return {key: whole.view(self.shapes[key]) for key, whole in self.flat.items()}


def whole_state(engine) -> Assembled:
    """The whole state of an engine that has one rank."""
    return Assembled([engine.state()])
