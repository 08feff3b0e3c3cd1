"""The folders that wandb writes to, and where the finished files of offline runs lie.

Online they are needed only while a run is open. Offline, each of `RUN/wandb/offline-run-*` holds what was new when it
was written: `wandb sync` uploads them one after another into one run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from lediflow.disk import flush
from lediflow.errors import disk_errors_explained
from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.record import Progress, SyncRecord, record_path

# variables of folders that wandb writes to, by default in HOME, which may be full or read-only
FOLDERS = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")
PROBE_BYTES = 2**20  # that must be free after a run was written
UNFINISHED = ".unfinished-"  # how the folders begin in which wandb writes
# names of the folders of offline runs, by wandb's convention: offline-run-20260301_093000-ID
OFFLINE, TIME = "offline-run-", "%Y%m%d_%H%M%S"


@contextmanager
def own_files(folder: RunFolder) -> Iterator[Path]:
    """A folder for all that wandb writes, removed at the end; those of killed processes are removed first."""
    root = record_path(folder).parent
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=root, ignore_cleanup_errors=True) as inside:
        before = {name: os.environ.get(name) for name in FOLDERS}
        os.environ.update(dict.fromkeys(FOLDERS, inside))
        try:
            yield Path(inside)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def free_name(folder: RunFolder, written: Path) -> str:
    """The name of an offline run that wandb gave, with a later second if another one of that second has it."""
    start, run_id = written.name.removeprefix(OFFLINE)[:15], written.name.removeprefix(OFFLINE)[15:]
    time = datetime.strptime(start, TIME)
    while (name := f"{OFFLINE}{time.strftime(TIME)}{run_id}") and record_path(folder).with_name(
        name
    ).exists():
        time += timedelta(seconds=1)
    return name


def check_space(inside: Path) -> None:
    """UserError if the disk is full, which wandb does not report: its files may be incomplete then."""
    probe = inside / "probe"
    with disk_errors_explained(inside.parent), probe.open("wb") as stream:
        stream.write(bytes(PROBE_BYTES))
        flush(probe)
    probe.unlink()


def put_in_place(folder: RunFolder, written: Path, name: str) -> None:
    """Move a finished offline run to its place, without wandb's logs."""
    for part in ("logs", "tmp"):
        shutil.rmtree(written / part, ignore_errors=True)
    written.rename(record_path(folder).with_name(name))


def is_in_place(folder: RunFolder, name: str) -> bool:
    return record_path(folder).with_name(name).is_dir()


def was_uploaded(folder: RunFolder, progress: Progress) -> bool:
    """Whether `wandb sync` has uploaded one of the files, or one was moved away."""
    return any(not has_unsent(record_path(folder).with_name(name)) for name in progress.folders)


def has_unsent(path: Path) -> bool:
    """Whether the folder of an offline run has a file that was not uploaded; wandb marks those that were."""
    return any(not Path(f"{file}.synced").exists() for file in path.glob("run-*.wandb"))


def remove_other_runs(folder: RunFolder, record: SyncRecord) -> None:
    """Remove offline runs of this W&B run that the record does not know, and that were not uploaded."""
    for path in record_path(folder).parent.glob(f"{OFFLINE}*-{record.run_id}"):
        if path.name not in record.offline.folders and has_unsent(path):
            shutil.rmtree(path, ignore_errors=True)
