"""The checkpoints of a run: which exist, which are whole, which may be removed.

A checkpoint is whole if it has exactly the files of its manifest, bit for bit, and if its slices make the whole state.
A fault is a phrase for a message, "slice-00000-of-00002.safetensors is missing". `find_fault` never raises: a
file that cannot be read is a fault, too.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from lediflow.disk import flush, sha256_of
from lediflow.engine.checkpoints.slices import SlicedState, slice_name
from lediflow.ranges import bounded
from lediflow.records import UNREADABLE, read_record

log = logging.getLogger(__name__)

AGAIN = "remove this checkpoint: a run continues from the newest valid one"
PROGRESS_TYPES = {
    "images_seen": int,
    "stream": dict[str, Any],
    "identity": dict[str, Any],
    "export": dict[str, Any],
    "held_out": dict[str, Any] | None,
    "exports": str,
    "ended": str | None,
}
PARTIAL = ".partial"  # suffix of a folder that is not yet, or no longer, a checkpoint


@dataclass(kw_only=True)
class CheckpointConfig:
    """When the state of a run is saved, and what is kept."""

    # interval, in images so that it does not depend on the number of GPUs; 0: only at the end
    every_images: int = bounded(1_048_576, at_least=0)
    keep_last: int = bounded(2, at_least=0)  # older checkpoints are removed; exported weights stay
    # the first checkpoint after each multiple of this is never removed; 0: none
    keep_every_images: int = bounded(0, at_least=0)
    # smallest distance of stored averages, from which other averages are made later; 0: none are stored
    snapshot_every_images: int = bounded(1_048_576, at_least=0)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    path: Path

    @property
    def images_seen(self) -> int:
        return int(self.path.name)

    @property
    def model(self) -> Path:
        """File of the averaged weights, as an export has them."""
        return self.path / MODEL

    @cached_property
    def progress(self) -> dict[str, Any]:
        """The record of clock, stream and identity."""
        return read_record(self.path / PROGRESS, AGAIN, PROGRESS_TYPES)

    @cached_property
    def state(self) -> SlicedState:
        """The engine's logical state."""
        return SlicedState(sorted(self.path.glob("slice-*.safetensors")))

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by key, each tensor in its own shape."""
        return {key: self.state.whole(key) for key in self.state.shapes}


class CheckpointFolder:
    """`checkpoints/` of a run."""

    def __init__(self, folder: Path, config: CheckpointConfig | None = None) -> None:
        self.folder = folder
        self.config = config or CheckpointConfig()

    def path_at(self, images_seen: int) -> Path:
        return self.folder / f"{images_seen:012d}"

    def paths(self) -> list[Path]:
        """Finished checkpoints, oldest first; folders with other names are ignored."""
        return sorted(path for path in self.folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir())

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None; broken ones are named in the log and skipped."""
        for path in reversed(self.paths()):
            fault = find_fault(path)
            if fault is None:
                return Checkpoint(path)
            log.warning("skipping the checkpoint %s: %s", path, fault)
        return None

    def drop_old(self, newest: Path) -> None:
        """Remove checkpoints up to `newest` that are neither among the last `keep_last` nor kept permanently.

        Later ones were skipped when the run began: they are broken and do not count.
        """
        paths = [path for path in self.paths() if path <= newest]
        for path, before in zip(paths, [None, *paths], strict=False):
            if path not in paths[-max(self.config.keep_last, 1) :] and not self._is_kept(path, before):
                try:
                    discard(path)
                except OSError as error:
                    log.warning("the old checkpoint %s cannot be removed: %s", path, error)

    def _is_kept(self, path: Path, before: Path | None) -> bool:
        every = self.config.keep_every_images
        return every > 0 and int(path.name) // every > (int(before.name) // every if before else 0)

    def clear_partial(self, keep: str) -> None:
        """Remove the partial folders of killed saves: all but those whose names have `keep` between two dots."""
        for path in self.folder.glob(f".*{PARTIAL}"):
            if f".{keep}." not in path.name:
                shutil.rmtree(path, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a checkpoint if it exists; it is renamed first, so that none is ever seen half removed."""
    if not path.exists():
        return
    aside = path.with_name(f".{path.name}.discarded{PARTIAL}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def write_flushed(path: Path, content: Any) -> None:
    """Write JSON; it is on the disk when this returns."""
    path.write_text(json.dumps(content, indent=2) + "\n")
    flush(path)


PROGRESS, MANIFEST, MODEL = "progress.json", "manifest.json", "model.safetensors"
SUMS = "sha256"  # the manifest's key
HASHING_THREADS = 8


def find_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sums = _sums_of(path)
        return _wrong_names(path, sums) or _wrong_sums(path, sums) or _wrong_state(path)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error})"


def _sums_of(path: Path) -> dict[str, str]:
    try:
        sums = json.loads((path / MANIFEST).read_text())[SUMS]
    except (OSError, *UNREADABLE, KeyError, TypeError) as error:
        raise ValueError(f"its {MANIFEST} cannot be read ({error})") from error
    if not isinstance(sums, dict):
        raise ValueError(f"its {MANIFEST} names no files")
    return sums


def _wrong_names(path: Path, sums: Mapping[str, str]) -> str | None:
    slices = [name for name in sums if name.startswith("slice-")]
    expected = {PROGRESS, MODEL, *(slice_name(rank, len(slices)) for rank in range(len(slices)))}
    if not slices or sums.keys() != expected:
        return f"its {MANIFEST} names {', '.join(sorted(sums)) or 'nothing'}: no state of {len(slices)} ranks"
    found = {entry.name for entry in path.iterdir() if not is_foreign(entry.name)} - {MANIFEST}
    if missing := sorted(sums.keys() - found):
        return f"{missing[0]} is missing"
    if unknown := sorted(found - sums.keys()):
        return f"{unknown[0]} is not in its {MANIFEST}"
    return None


def is_foreign(name: str) -> bool:
    """Whether a desktop or a file system made the file: .DS_Store, .snapshot, .nfs0001."""
    return name.startswith(".")


def _wrong_sums(path: Path, sums: Mapping[str, str]) -> str | None:
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        found = dict(zip(sums, pool.map(lambda name: sha256_of(path / name), sums), strict=True))
    if altered := [name for name, expected in sums.items() if found[name] != expected]:
        return f"{altered[0]} does not match its SHA-256 (truncated or altered)"
    return None


def _wrong_state(path: Path) -> str | None:
    """A fault in the slices themselves: matching hashes only say that nothing changed since they were written."""
    try:
        SlicedState(sorted(path.glob("slice-*.safetensors")))
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return f"its slices are not a state ({error})"
    return None
