"""The pieces of the logical state that a rank owns, on their way to a checkpoint and back.

A piece is a range of a flattened parameter with everything known about it: live float32 views of the weight, of Adam's
moments and of the averages. Where every rank holds everything, each writes an even share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lediflow.engine.copies import HostCopies
from lediflow.engine.ema import Averages
from lediflow.engine.protocol import EngineState, Extent, StateReader
from lediflow.engine.ranks import Ranks

WEIGHT, MOMENTS, BUFFER = "weight", ("exp_avg", "exp_avg_sq"), "buffer"


@dataclass(frozen=True)
class Piece:
    """Elements `extent.start` and following of one parameter; `views` by role are flat, float32 and live."""

    name: str
    extent: Extent
    views: Mapping[str, Tensor]

    def __len__(self) -> int:
        return self.views[WEIGHT].numel()

    def cut(self, start: int, stop: int) -> Piece:
        """The part between two places inside the piece."""
        extent = Extent(self.extent.start + start, self.extent.shape)
        return Piece(self.name, extent, {role: view[start:stop] for role, view in self.views.items()})


def with_averages(pieces: Sequence[Piece], averages: Averages) -> list[Piece]:
    """The pieces with the averages of their weights, which lie in the same order."""
    return [
        Piece(
            piece.name,
            piece.extent,
            {**piece.views, **{role: kept[number] for role, kept in averages.tensors.items()}},
        )
        for number, piece in enumerate(pieces)
    ]


def even_share(pieces: Sequence[Piece], ranks: Ranks) -> list[Piece]:
    """What one rank writes of pieces that all ranks hold: equal numbers of elements, to within one."""
    total = sum(map(len, pieces))
    first, last = (total * (ranks.rank + end) // ranks.world_size for end in (0, 1))
    share, begin = [], 0
    for piece in pieces:
        start, stop = max(first - begin, 0), min(last - begin, len(piece))
        if start < stop:
            share.append(piece.cut(start, stop))
        begin += len(piece)
    return share


def collect(
    pieces: Iterable[Piece], buffers: Mapping[str, Tensor], steps: int, copies: HostCopies
) -> EngineState:
    """Copies of the pieces, and of buffers (the first rank's), as a checkpoint keeps them."""
    live: dict[str, Tensor] = {}
    extents: dict[str, Extent] = {}
    for piece in pieces:
        for role, view in piece.views.items():
            live[f"{role}/{piece.name}"], extents[f"{role}/{piece.name}"] = view, piece.extent
    for name, buffer in buffers.items():
        live[f"{BUFFER}/{name}"] = buffer.detach().flatten()
        extents[f"{BUFFER}/{name}"] = Extent(0, tuple(buffer.shape))
    tensors, ready = copies.of(live)
    return EngineState(tensors, steps, extents, ready)


@torch.no_grad()
def restore(pieces: Iterable[Piece], reader: StateReader) -> None:
    """Set what this rank owns. Where nothing is known, moments are zero and averages start from the weights."""
    for piece in pieces:
        for role, view in piece.views.items():
            if role in MOMENTS and f"{role}/{piece.name}" not in reader.shapes:
                view.zero_()
            else:
                view.copy_(_part(reader, role, piece))


def _part(reader: StateReader, role: str, piece: Piece) -> Tensor:
    key = f"{role}/{piece.name}"
    known = key if key in reader.shapes else f"{WEIGHT}/{piece.name}"
    return reader.read(known, piece.extent.start, piece.extent.start + len(piece))


@torch.no_grad()
def restore_buffers(module: nn.Module, reader: StateReader) -> None:
    """Set what was drawn once."""
    for name, buffer in module.named_buffers():
        buffer.copy_(reader.read(f"{BUFFER}/{name}").view(buffer.shape))
