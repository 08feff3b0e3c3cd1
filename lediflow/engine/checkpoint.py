"""Checkpoints that are whole or absent.

A checkpoint is a folder `checkpoints/<images seen, 12 digits>` of safetensors and JSON with a manifest of SHA-256
sums. It is written beside its final name, flushed to the disk and renamed; readers take the newest one that matches
its manifest, and name the ones they skip.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from lediflow.engine.protocol import EngineState

log = logging.getLogger(__name__)

STATE, PROGRESS, MANIFEST = "state.safetensors", "progress.json", "manifest.json"


@dataclass(kw_only=True)
class CheckpointConfig:
    every_images: int = 1_048_576  # on the image clock, so the number of GPUs leaves it alone
    keep_last: int = 2  # older full states go; exported EMA weights stay


@dataclass(frozen=True)
class Checkpoint:
    """A run's whole memory: the engine's tensors, and a JSON-able record of clock, stream and identity."""

    engine: EngineState
    progress: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run; only the first rank may call `save`."""

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder = folder
        self.keep_last = keep_last

    def save(self, images_seen: int, checkpoint: Checkpoint) -> Path:
        """Write, flush, rename; then drop the oldest beyond `keep_last`."""
        final = self.folder / f"{images_seen:012d}"
        partial = self.folder / f".{final.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(checkpoint.engine.tensors, partial / STATE)
        _write_json(partial / PROGRESS, {**checkpoint.progress, "optimizer_steps": checkpoint.engine.steps})
        _write_json(partial / MANIFEST, {name: _sha256(partial / name) for name in (STATE, PROGRESS)})
        for path in (*partial.iterdir(), partial):
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(self.folder)
        self._drop_old()
        return final

    def newest(self) -> Checkpoint | None:
        """The newest valid checkpoint; broken ones are named in the log and passed over."""
        for path in reversed(self.paths()):
            fault = find_fault(path)
            if fault is None:
                return _read(path)
            log.warning("skipping the checkpoint %s: %s", path, fault)
        return None

    def paths(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("[0-9]*") if path.is_dir())

    def _drop_old(self) -> None:
        for path in self.paths()[: -max(self.keep_last, 1)]:
            shutil.rmtree(path)


def find_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None: every file of its manifest must be there, bit for bit."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    for name in (STATE, PROGRESS):
        if not (path / name).is_file():
            return f"{name} is missing"
        if _sha256(path / name) != manifest.get(name):
            return f"{name} does not match its SHA-256 (truncated or altered)"
    return None


def _read(path: Path) -> Checkpoint:
    progress = json.loads((path / PROGRESS).read_text())
    return Checkpoint(EngineState(load_file(path / STATE), progress["optimizer_steps"]), progress)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _flush(path: Path) -> None:
    """fsync a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
