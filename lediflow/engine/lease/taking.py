"""When a newcomer may take the lease, and how.

It takes one that is not there, was given back, belonged to a process that is dead, or stands still. From an older start
of the same SLURM job it takes a live one, and lets that start leave. Anybody else's live lease is refused.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from lediflow.engine.lease.record import LeaseRecord, UnreadableLeaseError, encoded, read_lease
from lediflow.errors import UserError

LOOK_EVERY_SECONDS = 0.1
LEFT = ".left"  # ends the name of the file by which a start that lost the lease says that it has gone


def take(path: Path, mine: LeaseRecord) -> tuple[int, LeaseRecord | None]:
    """The descriptor to renew it by, and the older start that has to leave before anything is written."""
    theirs = look(path)
    is_free = theirs is None or theirs.is_over
    if theirs is not None and not is_free and not theirs.precedes(mine):
        await_silence(path, theirs)
        is_free = True
    for mark in path.parent.glob(f".{path.name}.*{LEFT}"):
        mark.unlink(missing_ok=True)
    return put(path, mine), None if is_free else theirs


def look(path: Path) -> LeaseRecord | None:
    """What cannot be understood is nobody's lease: a disk has spoilt it."""
    try:
        return read_lease(path)
    except UnreadableLeaseError:
        return None


def put(path: Path, mine: LeaseRecord) -> int:
    """A new file under the lease's name, whatever stood there."""
    beside = path.with_name(f".{path.name}.{mine.token}")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    write(descriptor, mine)
    beside.rename(path)
    return descriptor


def write(descriptor: int, record: LeaseRecord) -> None:
    """In place, seen by other machines when this returns."""
    os.pwrite(descriptor, encoded(record), 0)
    os.fsync(descriptor)


def await_silence(path: Path, theirs: LeaseRecord) -> None:
    """Until the lease counts as abandoned; UserError as soon as it is renewed."""
    deadline = time.monotonic() + theirs.patience
    while time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_SECONDS)
        now = look(path)
        if now is None or now.is_over:
            return
        if now != theirs:
            raise UserError(refusal(path.parent, now))


def refusal(run: Path, live: LeaseRecord) -> str:
    end = f"scancel {live.job}" if live.job else f"kill {live.pid} on {live.host}"
    return (
        f"run={run} is being trained by {live}; two starts must not write one folder. Wait for it, "
        f"stop it (`touch {run}/stop` saves first; `{end}`), or choose another run="
    )


def await_departure(path: Path, older: LeaseRecord) -> None:
    """Until the older start says that it has left, is seen to be dead, or must have noticed by its own clock."""
    mark = left_mark(path, older)
    deadline = time.monotonic() + older.patience
    while time.monotonic() < deadline and not older.is_over and not mark.exists():
        time.sleep(LOOK_EVERY_SECONDS)
        os.listdir(path.parent)  # noqa: PTH208 - asks a network file system for news
    mark.unlink(missing_ok=True)


def left_mark(path: Path, older: LeaseRecord) -> Path:
    return path.with_name(f".{path.name}.{older.token}{LEFT}")
