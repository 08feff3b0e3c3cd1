"""What a run left in its folder, for comparison with another run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lediflow.engine.checkpoints import Checkpoint, CheckpointFolder


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's log, oldest first; a line still being written is left out."""
    path = run / "events.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def loss_curve(run: Path) -> dict[int, float]:
    """Images seen -> loss."""
    return {event["images_seen"]: event["loss"] for event in events(run, "train")}


def weights(run: Path) -> dict[str, Tensor]:
    """The exported (averaged) weights."""
    return load_file(run / "export" / "model.safetensors")


def newest_state(run: Path) -> dict[str, Tensor]:
    """Everything the engine remembers in the newest checkpoint, whole tensors by role and name."""
    return Checkpoint(CheckpointFolder(run / "checkpoints").paths()[-1]).tensors()


def assert_same_tensors(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Equal bit for bit."""
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def assert_near_tensors(left: dict[str, Tensor], right: dict[str, Tensor], *, relative: float) -> None:
    """Each tensor's difference is small relative to the tensor, for moments of 1e-6 as for weights of 1."""
    assert left.keys() == right.keys()
    away = {
        name: float((left[name] - right[name]).norm() / right[name].norm().clamp(min=1e-12)) for name in left
    }
    assert {name: distance for name, distance in away.items() if not distance <= relative} == {}
