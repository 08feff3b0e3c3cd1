"""The checkpoints of a run: which there are, which are whole, which may go."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from lediflow.engine.checkpoints.slices import SlicedState

log = logging.getLogger(__name__)

PROGRESS, MANIFEST, MODEL = "progress.json", "manifest.json", "model.safetensors"
PARTIAL = ".partial"
HASHING_THREADS = 8


@dataclass(kw_only=True)
class CheckpointConfig:
    every_images: int = 1_048_576  # on the image clock, so that the number of GPUs leaves it alone
    keep_last: int = 2  # older full states go; exported EMA weights stay
    keep_every_images: int = 0  # a state that crossed a multiple of this stays for ever; 0: none does
    snapshot_every_images: int = (
        1_048_576  # apart, at least, of stored averages from which others are made later; 0: none
    )


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    path: Path

    @property
    def images_seen(self) -> int:
        return int(self.path.name)

    @cached_property
    def progress(self) -> dict[str, Any]:
        """The record of clock, stream and identity."""
        return json.loads((self.path / PROGRESS).read_text())

    @cached_property
    def state(self) -> SlicedState:
        """The engine's logical state."""
        return SlicedState(sorted(self.path.glob("slice-*.safetensors")))

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by key, in its own shape."""
        return {key: self.state.whole(key) for key in self.state.shapes}


class CheckpointFolder:
    """`checkpoints/` of a run."""

    def __init__(self, folder: Path, config: CheckpointConfig | None = None) -> None:
        self.folder = folder
        self.config = config or CheckpointConfig()

    def paths(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("[0-9]*") if path.is_dir())

    def newest(self) -> Checkpoint | None:
        """The newest valid checkpoint; broken ones are named in the log and passed over."""
        for path in reversed(self.paths()):
            fault = find_fault(path)
            if fault is None:
                return Checkpoint(path)
            log.warning("skipping the checkpoint %s: %s", path, fault)
        return None

    def drop_old(self) -> None:
        """Remove what is neither among the last nor kept for ever."""
        paths = self.paths()
        for path, before in zip(paths, [None, *paths], strict=False):
            if path not in paths[-max(self.config.keep_last, 1) :] and not self._is_kept(path, before):
                shutil.rmtree(path, ignore_errors=True)

    def _is_kept(self, path: Path, before: Path | None) -> bool:
        every = self.config.keep_every_images
        return every > 0 and int(path.name) // every > (int(before.name) // every if before else 0)

    def clear_partial(self, except_session: str) -> None:
        """Remove what killed attempts have left."""
        for path in self.folder.glob(f".*{PARTIAL}"):
            if f".{except_session}{PARTIAL}" not in path.name:
                shutil.rmtree(path, ignore_errors=True)


def find_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None: exactly the files of its manifest, bit for bit, whole together."""
    try:
        manifest: Mapping[str, str] = json.loads((path / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    if PROGRESS not in manifest or not any(name.startswith("slice-") for name in manifest):
        return f"its {MANIFEST} names no state"
    found = {entry.name for entry in path.iterdir()} - {MANIFEST}
    if missing := sorted(manifest.keys() - found):
        return f"{missing[0]} is missing"
    if unknown := sorted(found - manifest.keys()):
        return f"{unknown[0]} is not in its {MANIFEST}"
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        sums = dict(zip(manifest, pool.map(lambda name: sha256_of(path / name), manifest), strict=True))
    if altered := [name for name, expected in manifest.items() if sums[name] != expected]:
        return f"{altered[0]} does not match its SHA-256 (truncated or altered)"
    try:
        SlicedState([path / name for name in sorted(manifest) if name.startswith("slice-")])
    except (ValueError, KeyError) as error:
        return str(error)
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """fsync a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_flushed(path: Path, content: Any) -> None:
    """JSON, on the disk when this returns."""
    path.write_text(json.dumps(content, indent=2) + "\n")
    flush(path)
