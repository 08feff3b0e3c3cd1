"""Averages stored along the run, from which averages of any width are made afterwards (averaging.py).

One file each, `averages/<images seen, 12 digits>.safetensors`: whole tensors in float16 by role and name, with the
SHA-256 of their bytes in the metadata. They are written with checkpoints, and never dropped. The metadata also name the
history they belong to: a run that began anew in the same folder takes nothing from the one before.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lediflow.disk import flush
from lediflow.engine.checkpoints.slices import SlicedState, bytes_of, write_tensors

log = logging.getLogger(__name__)

SUM, HISTORY = "sha256", "history"  # keys of the metadata


class Snapshots:
    """`averages/` of a run."""

    def __init__(self, folder: Path, every_images: int = 0) -> None:
        self.folder, self.every_images = folder, every_images

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in self.folder.glob("[0-9]*.safetensors") if path.stem.isdecimal())

    def whole(self, before: int, history: str) -> list[Path]:
        """Those of this history before so many images; others are named in the log and passed over."""
        paths = [path for path in self.paths() if int(path.stem) < before]
        faults = {path: find_snapshot_fault(path) or _foreign(path, history) for path in paths}
        for path, fault in faults.items():
            if fault:
                log.warning("leaving out the stored averages %s: %s", path, fault)
        return [path for path in paths if not faults[path]]

    def store(self, images_seen: int, state: SlicedState, history: str) -> None:
        """Store the power-function averages, unless some are near, be they of later steps that were withdrawn."""
        keys = [key for key in state.shapes if key.startswith("ema_")]
        if not self.every_images or not keys or self._is_near(images_seen, history):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{images_seen:012d}.safetensors"
        beside = self.folder / f".{path.name}"
        averages = {key: state.whole(key).to(torch.float16) for key in keys}
        try:
            write_tensors(beside, averages, {SUM: _sum_of(averages), HISTORY: history})
        except OSError:
            beside.unlink(missing_ok=True)  # what a full disk took of it
            raise
        beside.replace(path)
        flush(self.folder)

    def _is_near(self, images_seen: int, history: str) -> bool:
        own = [int(path.stem) for path in self.paths() if _foreign(path, history) is None]
        others = [place for place in own if place != images_seen]
        return any(abs(images_seen - other) < self.every_images for other in others)


def find_snapshot_fault(path: Path) -> str | None:
    """What is wrong with stored averages, or None."""
    try:
        with safe_open(path, framework="pt") as file:
            expected = file.metadata()[SUM]
        with path.open("rb") as raw:
            raw.seek(int.from_bytes(raw.read(8), "little"), 1)  # over the header
            found = hashlib.file_digest(raw, "sha256").hexdigest()
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        return f"it cannot be read ({error})"
    return None if found == expected else "it does not match its SHA-256 (altered)"


def _foreign(path: Path, history: str) -> str | None:
    """What is wrong with stored averages that another run has left, or None."""
    try:
        with safe_open(path, framework="pt") as file:
            found = (file.metadata() or {}).get(HISTORY, "")
    except (OSError, SafetensorError) as error:
        return f"it cannot be read ({error})"
    return None if found == history else "another run has left it in this folder"


def roles_in(path: Path) -> list[str]:
    """`ema_0.050` and others."""
    with safe_open(path, framework="pt") as file:
        return sorted({key.partition("/")[0] for key in file.keys()})  # noqa: SIM118 - not a dict


def tensors_in(path: Path, role: str) -> Iterator[tuple[str, Tensor]]:
    """One average: each tensor with its name."""
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a dict
            if key.startswith(f"{role}/"):
                yield key.partition("/")[2], file.get_tensor(key)


def _sum_of(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(bytes_of(tensor))
    return digest.hexdigest()
