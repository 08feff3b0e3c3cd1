"""Writing a checkpoint in threads of all ranks, which coordinate through files.

Each rank writes its slice into `.<images>.<session>.<number>.partial`, then a mark with the slice's hash. Rank 0 waits
for all marks, adds what is written once, and renames the folder. The session is one start of the run, the number counts
its saves and is equal on all ranks: what a killed start or a failed save left has another name. Marks are renamed into
place, so a mark that exists is whole. Before anything gets its final name, the fence checks that this process still
holds the run folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lediflow.disk import flush, replacing, sha256_of
from lediflow.engine.checkpoints.averages import HISTORY, Snapshots
from lediflow.engine.checkpoints.folder import (
    MANIFEST,
    MODEL,
    PARTIAL,
    PROGRESS,
    SUMS,
    CheckpointFolder,
    discard,
    write_flushed,
)
from lediflow.engine.checkpoints.slices import SlicedState, slice_name, write_slice, write_tensors
from lediflow.engine.ema import HALF_LIFE
from lediflow.engine.owned_state import BUFFER
from lediflow.engine.protocol import EngineState
from lediflow.engine.ranks import Ranks

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class Saved:
    path: Path
    seconds: float


@dataclass(frozen=True)
class Failed:
    reason: str


class CheckpointWriter:
    """One rank's part in the checkpoints of a run, one checkpoint at a time."""

    def __init__(
        self, folder: CheckpointFolder, ranks: Ranks, session: str, snapshots: Snapshots | None = None
    ) -> None:
        self.folder, self.ranks, self.session, self.snapshots = folder, ranks, session, snapshots
        self.fence: Callable[[], None] = lambda: None  # raises where another process holds the folder
        self.number = 0  # saves begun
        self.thread: threading.Thread | None = None
        self.is_abandoned = threading.Event()
        self.is_slice_done = threading.Event()
        self.is_slice_done.set()
        # why this rank's slice could not be written, or on rank 0 the whole
        self.error: Exception | None = None
        self.outcome: Saved | Failed | None = None
        if ranks.is_first:
            folder.clear_partial(keep=session)

    @property
    def is_busy(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def begin(self, images_seen: int, state: EngineState, progress: dict[str, Any]) -> None:
        """Start writing; the state's tensors must stay as they are until the slice is done."""
        if self.is_busy:
            raise RuntimeError("a checkpoint is still being written: wait for it first")
        self.number += 1
        self.outcome = self.error = None
        self.is_abandoned.clear()
        self.is_slice_done.clear()
        # a daemon thread: a process that must end does not wait for a disk that hangs
        self.thread = threading.Thread(
            target=self._write, args=(images_seen, state, progress), name="checkpoint", daemon=True
        )
        self.thread.start()

    def wait_slice(self) -> Exception | None:
        """Wait until this rank's slice is written; the error if it could not be."""
        self.is_slice_done.wait()
        if self.thread is not None and not self.ranks.is_first:
            self.thread.join()  # it has nothing left to do, and the next save may begin at once
        return self.error

    def wait_commit(self) -> Saved | Failed | None:
        """Wait until the thread has ended: on rank 0 for the whole checkpoint."""
        if self.thread is not None:
            self.thread.join()
        return self.poll()

    def abandon(self) -> None:
        """A rank could not write its slice: stop waiting for the others, remove the partial folder."""
        self.is_abandoned.set()
        if self.thread is not None:
            self.thread.join()

    def poll(self) -> Saved | Failed | None:
        """How the last save ended, returned once; None while it is under way."""
        if self.is_busy:
            return None
        outcome, self.outcome = self.outcome, None
        if outcome is not None:
            self.error = None
        return outcome

    def _write(self, images_seen: int, state: EngineState, progress: dict[str, Any]) -> None:
        started = time.monotonic()
        final = self.folder.path_at(images_seen)
        attempt = f"{self.session}.{self.number}"
        partial = final.with_name(f".{final.name}.{attempt}{PARTIAL}")
        try:
            if self.ranks.is_first:
                # a failed save may have left slices of other ranks
                self.folder.clear_partial(keep=attempt)
            self._write_slice(partial, state)
            self.is_slice_done.set()
            if self.ranks.is_first:
                self._commit(partial, final, progress)
            self.outcome = Saved(final, time.monotonic() - started)
        except Exception as error:
            self.error = self.error or error
            self.outcome = Failed(_sentence(error))
            if self.ranks.is_first:
                shutil.rmtree(partial, ignore_errors=True)
        finally:
            self.is_slice_done.set()

    def _write_slice(self, partial: Path, state: EngineState) -> None:
        state.ready()
        partial.mkdir(parents=True, exist_ok=True)
        name = slice_name(self.ranks.rank, self.ranks.world_size)
        digest = write_slice(partial / name, state.tensors, state.extents, state.steps)
        with replacing(partial / f"{name}.mark", temporary=f".{name}.mark") as new:
            write_flushed(new, {name: digest})

    def _commit(self, partial: Path, final: Path, progress: dict[str, Any]) -> None:
        names = [slice_name(rank, self.ranks.world_size) for rank in range(self.ranks.world_size)]
        sums = self._collect_marks(partial, names)
        whole = SlicedState([partial / name for name in names])
        sums[MODEL] = write_averaged(partial / MODEL, whole)
        write_flushed(partial / PROGRESS, {**progress, "optimizer_steps": whole.steps})
        sums[PROGRESS] = sha256_of(partial / PROGRESS)
        self.fence()
        if self.snapshots is not None:
            self.snapshots.store(int(final.name), whole, progress.get(HISTORY, ""))
        write_flushed(partial / MANIFEST, {SUMS: sums})
        flush(partial)
        self.fence()
        discard(final)  # a broken one that was skipped when the run began
        partial.rename(final)
        flush(self.folder.folder)
        self.folder.drop_old(newest=final)

    def _collect_marks(self, partial: Path, names: list[str]) -> dict[str, str]:
        """Wait for the marks of all slices; their hashes by name. The marks are removed."""
        sums: dict[str, str] = {}
        for name in names:
            mark = partial / f"{name}.mark"
            while not mark.exists():
                if self.is_abandoned.wait(LOOK_EVERY_SECONDS):
                    raise OSError(f"another rank could not write its part ({name} is not there)")
                os.listdir(partial)  # noqa: PTH208 - refreshes the cache of a network file system
            sums |= json.loads(mark.read_text())
            mark.unlink()
        return sums


def write_averaged(path: Path, state: SlicedState, role: str = HALF_LIFE) -> str:
    """Write averaged weights and buffers under the module's own names; returns the file's SHA-256."""
    keys = [key for key in state.shapes if key.partition("/")[0] in (role, BUFFER)]
    return write_tensors(path, {key.partition("/")[2]: state.whole(key) for key in keys}, {})


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    return str(error) or type(error).__name__
