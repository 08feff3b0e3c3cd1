"""The checkpoints of a run: which there are, which are whole, which may go."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from lediflow.disk import flush
from lediflow.engine.checkpoints.faults import MODEL, PROGRESS, find_fault
from lediflow.engine.checkpoints.slices import SlicedState
from lediflow.ranges import bounded
from lediflow.records import read_record

log = logging.getLogger(__name__)

AGAIN = "remove this checkpoint: a run continues from the newest whole one"
PROGRESS_TYPES = {
    "images_seen": int,
    "stream": dict[str, Any],
    "identity": dict[str, Any],
    "export": dict[str, Any],
    "held_out": dict[str, Any] | None,
    "exports": str,
    "ended": str | None,
}
PARTIAL = ".partial"  # ends the name of what is not yet, or no longer, a checkpoint


@dataclass(kw_only=True)
class CheckpointConfig:
    every_images: int = bounded(
        1_048_576, at_least=0
    )  # on the image clock, so that the number of GPUs leaves it alone
    keep_last: int = bounded(2, at_least=0)  # older full states go; exported EMA weights stay
    keep_every_images: int = bounded(
        0, at_least=0
    )  # a state that crossed a multiple of this stays for ever; 0: none does
    snapshot_every_images: int = bounded(
        1_048_576, at_least=0
    )  # apart, at least, of stored averages from which others are made later; 0: none


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    path: Path

    @property
    def images_seen(self) -> int:
        return int(self.path.name)

    @property
    def model(self) -> Path:
        """The averaged weights, as an export has them."""
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
        """Everything, by key, in its own shape."""
        return {key: self.state.whole(key) for key in self.state.shapes}


class CheckpointFolder:
    """`checkpoints/` of a run."""

    def __init__(self, folder: Path, config: CheckpointConfig | None = None) -> None:
        self.folder = folder
        self.config = config or CheckpointConfig()

    def path_at(self, images_seen: int) -> Path:
        return self.folder / f"{images_seen:012d}"

    def paths(self) -> list[Path]:
        """Finished checkpoints, oldest first; folders of other names are none of them."""
        return sorted(path for path in self.folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir())

    def newest(self) -> Checkpoint | None:
        """The newest valid checkpoint; broken ones are named in the log and passed over."""
        for path in reversed(self.paths()):
            fault = find_fault(path)
            if fault is None:
                return Checkpoint(path)
            log.warning("skipping the checkpoint %s: %s", path, fault)
        return None

    def drop_old(self, newest: Path) -> None:
        """Remove what is neither among the last, up to the one just written, nor kept for ever.

        Later ones were passed over when the run began: they are broken, and count for nothing.
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
        """Remove what killed attempts have left: all but those with `keep` in their names, between two dots."""
        for path in self.folder.glob(f".*{PARTIAL}"):
            if f".{keep}." not in path.name:
                shutil.rmtree(path, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a checkpoint, if it is there; it loses its name first, so that none is ever seen half removed."""
    if not path.exists():
        return
    aside = path.with_name(f".{path.name}.discarded{PARTIAL}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def write_flushed(path: Path, content: Any) -> None:
    """JSON, on the disk when this returns."""
    path.write_text(json.dumps(content, indent=2) + "\n")
    flush(path)
