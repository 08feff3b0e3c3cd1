"""Averages stored along the run, from which averages of any width are made afterwards (posthoc.py).

One file each, `averages/<images seen, 12 digits>.safetensors`: whole tensors in float16 by role and name. They are
written with checkpoints, and never dropped.
"""

from __future__ import annotations

from pathlib import Path

import torch

from lediflow.engine.checkpoints.slices import SlicedState, write_tensors


class Snapshots:
    """`averages/` of a run."""

    def __init__(self, folder: Path, every_images: int = 0) -> None:
        self.folder, self.every_images = folder, every_images

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def store(self, images_seen: int, state: SlicedState) -> None:
        """Store the power-function averages, unless the last ones are near."""
        keys = [key for key in state.shapes if key.startswith("ema_")]
        if not self.every_images or not keys or self._is_near(images_seen):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{images_seen:012d}.safetensors"
        beside = self.folder / f".{path.name}"
        write_tensors(beside, {key: state.whole(key).to(torch.float16) for key in keys}, {})
        beside.replace(path)

    def _is_near(self, images_seen: int) -> bool:
        earlier = [int(path.stem) for path in self.paths() if int(path.stem) != images_seen]
        return bool(earlier) and abs(images_seen - max(earlier)) < self.every_images
