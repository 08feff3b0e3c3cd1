"""A feature extractor that takes milliseconds, for tests that do not look at the values of features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

SIDE = 16  # of the pictures that it takes


def small_features(folder: Path) -> tuple[str, ...]:
    """Options of `evaluate` that choose an extractor of random weights; its file in the folder is written once."""
    path = folder / "small.pt"
    if not path.exists():
        torch.manual_seed(0)
        module = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(SIDE**2 * 3 // 16, 32))
        torch.jit.script(module).save(path)
    return "features.name=torchscript", f"features.path={path}", f"features.size={SIDE}"
