"""The part of the training state that a rank owns: pieces of parameters, their host copies, and their AdamW.

A piece is a range of a flattened parameter with live float32 views of everything known about it: the weight, Adam's
moments, the averages. A checkpoint is written from the pieces of all ranks and read into them. Where every rank holds
the whole state, each writes an even share.

AdamW leaves the weights unchanged when the gradient is not finite, without a message to the host: the fused
implementations read `found_inf` on the device, as gradient scalers use it; 1 means that weights, moments and the count
of steps stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lediflow.engine.ema import Averages
from lediflow.engine.protocol import EngineState, Extent, StateReader
from lediflow.engine.ranks import Ranks

WEIGHT, MOMENTS, BUFFER = "weight", ("exp_avg", "exp_avg_sq"), "buffer"


@dataclass(frozen=True)
class Piece:
    """Elements of one parameter from `extent.start` on; `views` by role are flat, float32 and live."""

    name: str
    extent: Extent
    views: Mapping[str, Tensor]

    def __len__(self) -> int:
        return self.views[WEIGHT].numel()

    def cut(self, start: int, stop: int) -> Piece:
        """Elements [start, stop) of the piece."""
        extent = Extent(self.extent.start + start, self.extent.shape)
        return Piece(self.name, extent, {role: view[start:stop] for role, view in self.views.items()})


def whole_piece(name: str, weight: Tensor, moments: Mapping[str, Tensor]) -> Piece:
    """A parameter that this rank owns as a whole, with Adam's moments of it."""
    views = {WEIGHT: weight.data.view(-1)} | {moment: moments[moment].view(-1) for moment in MOMENTS}
    return Piece(name, Extent(0, tuple(weight.shape)), views)


def with_averages(pieces: Sequence[Piece], averages: Averages) -> list[Piece]:
    """The pieces with the averages of their weights; both are in the same order."""
    return [
        Piece(
            piece.name,
            piece.extent,
            {**piece.views, **{role: kept[number] for role, kept in averages.tensors.items()}},
        )
        for number, piece in enumerate(pieces)
    ]


def even_share(pieces: Sequence[Piece], ranks: Ranks) -> list[Piece]:
    """The part that one rank writes of pieces that all ranks hold; element counts differ by at most one."""
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
    """Copies of the pieces and of the buffers (rank 0's), as a checkpoint keeps them."""
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
    """Read this rank's pieces. Moments that are absent become zero, absent averages start from the weights."""
    for piece in pieces:
        for role, view in piece.views.items():
            if role in MOMENTS and f"{role}/{piece.name}" not in reader.shapes:
                view.zero_()
            else:
                view.copy_(_read_range(reader, role, piece))


def _read_range(reader: StateReader, role: str, piece: Piece) -> Tensor:
    key = f"{role}/{piece.name}"
    known = key if key in reader.shapes else f"{WEIGHT}/{piece.name}"
    return reader.read(known, piece.extent.start, piece.extent.start + len(piece))


@torch.no_grad()
def restore_buffers(module: nn.Module, reader: StateReader) -> None:
    """Read the buffers: values that are drawn once and never trained."""
    for name, buffer in module.named_buffers():
        buffer.copy_(reader.read(f"{BUFFER}/{name}").view(buffer.shape))


class HostCopies:
    """Copies of device tensors in host memory, made while training goes on; the next `of` overwrites the last copies.

    Copies from a GPU are queued behind the step that was just launched, into page-locked memory that is kept for the
    next time: the caller waits for microseconds, and the thread that reads the copies waits until they have arrived.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Float32 copies, and a function that waits until they have arrived."""
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


def adamw(groups: list[dict[str, Any]], betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW with decoupled decay (Loshchilov & Hutter 2019, algorithm 2), one kernel for all weights of a group."""
    return torch.optim.AdamW(groups, betas=betas, fused=True)


def create_moments(optimizer: torch.optim.Optimizer, weights: Iterable[Tensor]) -> None:
    """Create Adam's state. torch does so at the first step, but a continued run must fill it before."""
    for weight in weights:
        moments = {moment: torch.zeros_like(weight) for moment in MOMENTS}
        optimizer.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}


def steps_made(optimizer: torch.optim.Optimizer) -> int:
    """Number of steps that changed the weights; waits for the device."""
    return int(next(iter(optimizer.state.values()))["step"].item()) if optimizer.state else 0


def set_steps_made(optimizer: torch.optim.Optimizer, steps: int) -> None:
    for state in optimizer.state.values():
        state["step"].fill_(steps)


def skip_unless_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Make the optimizer leave out its next step if the norm is not finite; stays on the device."""
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = (~norm.isfinite()).to(torch.float32)  # type: ignore[attr-defined]


@torch.no_grad()
def clip_gradient(optimizer: torch.optim.Optimizer, weights: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale the whole gradient to a norm of at most `most` (0: no limit); the norm before, 0-d on the device."""
    norm = nn.utils.clip_grad_norm_(weights, most or torch.inf)
    skip_unless_finite(optimizer, norm)
    return norm
