"""Small logical states, cut among ranks as engines cut them, and checkpoints made of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lediflow.engine.checkpoints import Checkpoint, CheckpointFolder, CheckpointWriter, Failed, Saved
from lediflow.engine.checkpoints.averages import Snapshots
from lediflow.engine.protocol import EngineState, Extent
from lediflow.engine.ranks import Ranks

SHAPES = {
    **{f"{role}/a": (5, 3) for role in ("weight", "exp_avg", "exp_avg_sq", "ema", "ema_0.050")},
    **{f"{role}/b.c": (7,) for role in ("weight", "exp_avg", "exp_avg_sq", "ema", "ema_0.050")},
    "buffer/f": (2, 2),
}


def whole(seed: int) -> dict[str, Tensor]:
    """Every tensor of a state, drawn from a seed."""
    random = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=random) for key, shape in SHAPES.items()}


def part(tensors: dict[str, Tensor], rank: int = 0, ranks: int = 1, steps: int = 3) -> EngineState:
    """What one rank writes: an even range of every flattened tensor."""
    pieces, extents = {}, {}
    for key, tensor in tensors.items():
        start, stop = (tensor.numel() * (rank + end) // ranks for end in (0, 1))
        if start < stop:
            pieces[key] = tensor.flatten()[start:stop]
            extents[key] = Extent(start, tuple(tensor.shape))
    return EngineState(pieces, steps, extents)


def writers(folder: CheckpointFolder, ranks: int, session: str = "one") -> list[CheckpointWriter]:
    return [CheckpointWriter(folder, Ranks(rank, ranks), session) for rank in range(ranks)]


def written(
    folder: CheckpointFolder,
    images: int,
    tensors: dict[str, Tensor] | None = None,
    ranks: int = 1,
    snapshots: Snapshots | None = None,
    history: str = "",
) -> Checkpoint:
    """A checkpoint by that many ranks, which are threads here; its state is drawn from `images`, unless given."""
    tensors = whole(images) if tensors is None else tensors
    together = writers(folder, ranks)
    together[0].snapshots = snapshots
    progress = {"images_seen": images} | ({"history": history} if history else {})
    for rank, writer in enumerate(together):
        writer.begin(images, part(tensors, rank, ranks), progress)
    outcomes = [writer.wait_commit() for writer in together]
    assert all(isinstance(outcome, Saved) for outcome in outcomes), outcomes
    return Checkpoint(folder.path_at(images))


def assert_holds(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> None:
    """Every tensor, bit for bit."""
    found = checkpoint.tensors()
    assert found.keys() == tensors.keys()
    assert [key for key in tensors if not torch.equal(found[key], tensors[key])] == []


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def reason(outcome: Saved | Failed | None) -> str:
    assert isinstance(outcome, Failed), outcome
    return outcome.reason
