"""RUN/wandb/sync.json: the id of a run at W&B, and what was decided about its rows.

The id is derived from the run folder when it is first needed, and kept, so that it stays when the folder is moved.
The file is written before anything that it describes is sent: after a kill, the same rows have the same steps.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lediflow.disk import hash_key, write_json
from lediflow.errors import UserError
from lediflow.records import RecordError, read_dataclass, read_record
from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.log_index import first_event

UNUSUAL = re.compile(r"[^A-Za-z0-9_-]+")  # characters that ids at W&B may not have, and others
NAME_LENGTH = 48  # of the part of an id that people read
AGAIN = "delete it, and `python -m lediflow.sync RUN --new` writes a new W&B run"


class BusyError(UserError):
    """Another process sends the run."""


@dataclass(frozen=True)
class SentResult:
    """A file of results that got rows of its own: they follow the first `after` events of the log."""

    after: int
    file: str  # relative to the run folder
    sha256: str


@dataclass(frozen=True)
class Target:
    """Where a run appears."""

    mode: str = "offline"
    project: str = "lediflow"
    entity: str | None = None  # None: the account's default


@dataclass(frozen=True)
class Progress:
    """What one place has: a project of a server, or the files of offline runs."""

    project: str | None = None
    entity: str | None = None
    next_step: int = 0  # of the next row; a server is asked for it
    # first and last step of each stretch of the log that was not sent, because later lines replace it
    skipped: list[list[int]] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)  # hashes by name
    config: str | None = None  # hash of the options
    folders: list[str] = field(default_factory=list)  # names of the offline runs, oldest first

    def is_for(self, target: Target) -> bool:
        return (self.project, self.entity) == (target.project, target.entity)


@dataclass(frozen=True)
class SyncRecord:
    run_id: str
    copies: int = 1  # W&B runs made of this folder; a second one has an id of its own
    results: list[SentResult] = field(default_factory=list)
    online: Progress = field(default_factory=Progress)
    offline: Progress = field(default_factory=Progress)
    # of the files that are about to be put in place: true as soon as they are
    pending: Progress | None = None


def record_path(folder: RunFolder) -> Path:
    return folder.root / "wandb" / "sync.json"


def read_sync_record(folder: RunFolder) -> SyncRecord:
    """The record of a run folder; a new one where there is none. RecordError if it cannot be read."""
    path = record_path(folder)
    if not path.exists():
        return SyncRecord(run_id=derived_id(folder))
    try:
        record: SyncRecord = read_dataclass(SyncRecord, read_record(path, AGAIN), str(path))
    except RecordError:
        raise
    except ValueError as error:  # a value of another type
        raise RecordError(f"{error}; {AGAIN}") from error
    return record


def save_record(folder: RunFolder, record: SyncRecord) -> None:
    """Write the record; UserError if the disk refuses it."""
    write_json(record_path(folder), asdict(record))


def derived_id(folder: RunFolder, copies: int = 1) -> str:
    """The W&B id of a run: its name, and a hash of its place and of the time of its first event."""
    first = first_event(folder.events)
    key = hash_key("\n".join([str(folder.root.resolve()), *([first["time"]] if first else [])]), digits=8)
    name = UNUSUAL.sub("-", folder.root.resolve().name).strip("-")[:NAME_LENGTH] or "run"
    return f"{name}-{key}" if copies == 1 else f"{name}-{key}-{copies}"


def run_id_of(folder: RunFolder) -> str:
    """The W&B id of a run folder, which is not changed: also of one that was never synchronised."""
    return read_sync_record(folder).run_id


def renewed(folder: RunFolder, record: SyncRecord) -> SyncRecord:
    """The record for another W&B run of the same folder, to which nothing was sent yet."""
    copies = record.copies + 1
    return SyncRecord(run_id=derived_id(folder, copies), copies=copies)


@contextmanager
def only_writer(folder: RunFolder) -> Iterator[None]:
    """Hold the lock of the run's view; BusyError if another process holds it, UserError if it cannot be written."""
    path = record_path(folder).with_name(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write {path.parent}: {error.strerror}; change its permissions") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"another process sends {folder.root} to W&B (a training with tracking=wandb, or "
                "`lediflow.sync --follow`); wait until it has ended"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
