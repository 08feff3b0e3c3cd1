"""Files on disks: written whole or not at all, flushed, hashed.

A file is written under a temporary name in the same folder and renamed, so that a reader sees the old file or the new
one, never a part. The writers differ in what else they guarantee:

whole_or_absent     flushes the content first, has a temporary name of its own on every machine and process, and reports
                    errors as a UserError: what commands write into output folders, several processes at once
replacing           only the rename: for writers that flush, hash or report errors in their own way
replace_text        without waiting for the disk: small records that are written again and again
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from lediflow.errors import disk_errors_explained

PARTIAL = ".partial"  # how the names of unfinished files end
ABANDONED_SECONDS = 3600.0  # an unfinished file of another machine is abandoned when unchanged for this long


def flush(path: Path) -> None:
    """fsync a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, temporary: str | None = None) -> Iterator[Path]:
    """A path next to `path` to write to; renamed to `path` when the block ends well, removed when it does not.

    The block has to flush what must survive a loss of power. `temporary` is the hidden name to use where a killed
    writer must not leave more than one file; by default the name belongs to this machine and process.
    """
    new = path.with_name(temporary or f".{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL}")
    try:
        yield new
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


@contextmanager
def whole_or_absent(path: Path, *, is_flushed: bool = True) -> Iterator[BinaryIO]:
    """Open `path` for writing; it appears, with its folder, only when the block ends well. Disk errors are UserErrors.

    is_flushed=False does not wait for the disk: after a loss of power the file may be empty.
    """
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new, new.open("wb") as stream:
            yield stream
            stream.flush()
            if is_flushed:
                os.fsync(stream.fileno())


def replace_text(path: Path, text: str, temporary: str | None = None) -> None:
    """Replace a small text file without waiting for the disk; see `replacing`. Raises OSError."""
    with replacing(path, temporary) as new:
        new.write_text(text)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON with sorted keys: equal content gives equal bytes. Whole or absent."""
    with whole_or_absent(path) as stream:
        stream.write(json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line. Whole or absent."""
    with whole_or_absent(path) as stream:
        stream.writelines(json.dumps(row, sort_keys=True).encode() + b"\n" for row in rows)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_key(text: str, digits: int = 16) -> str:
    """Key of a cache, or the part of a file's name that identifies a text: the first digits of its SHA-256.

    The number of digits is part of names on disk. See `shown_hash` in text.py for hashes in messages.
    """
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:digits]


def clear_abandoned(folder: Path) -> None:
    """Remove the unfinished files of `whole_or_absent` whose writers are gone."""
    for path in folder.glob(f".*{PARTIAL}"):
        if _is_abandoned(path):
            path.unlink(missing_ok=True)


def _is_abandoned(partial: Path) -> bool:
    """Whether the process whose number ends the name of an unfinished file is gone."""
    host, _, process = partial.name.removesuffix(PARTIAL).rpartition("-")
    if not host.endswith(f".{socket.gethostname()}") or not process.isdigit():
        return _seconds_unchanged(partial) > ABANDONED_SECONDS
    return not process_exists(int(process))


def _seconds_unchanged(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def process_exists(pid: int) -> bool:
    """Whether a process of this id runs on this machine; one that waits to be reaped does not, a reused id does."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # another user's process
        return True
