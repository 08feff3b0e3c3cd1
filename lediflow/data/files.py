"""Files that are whole or absent, and disk errors told to the person who can act on them.

A file is written beside its final name, flushed to the disk and renamed, so a reader never meets half of one.
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

from lediflow.disk import ADVICE
from lediflow.errors import UserError

PARTIAL = ".partial"  # how the names of unfinished files end
ABANDONED_SECONDS = 3600.0  # another machine's unfinished file that rests for so long has no writer


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into a sentence with a next move."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "check the path and the disk")
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


@contextmanager
def whole_or_absent(path: Path, *, is_flushed: bool = True) -> Iterator[BinaryIO]:
    """Open `path` for writing under a name of this process's own; it appears only when the block ends well.

    is_flushed=False leaves out the wait for the disk: after a loss of power the file may be empty.
    """
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL}")
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                if is_flushed:
                    os.fsync(stream.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What two records of a set or a run differ in, as `size: 16 then, 12 now; ...`; empty where they agree."""
    changed = (name for name, value in now.items() if before.get(name) != value)
    return "; ".join(f"{name}: {before.get(name)} then, {now[name]} now" for name in changed)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON with sorted keys: equal content gives equal bytes."""
    with whole_or_absent(path) as stream:
        stream.write(json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    with whole_or_absent(path) as stream:
        stream.writelines(json.dumps(row, sort_keys=True).encode() + b"\n" for row in rows)


def sha256_of(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def clear_abandoned(folder: Path) -> None:
    """Remove unfinished files whose writers are gone."""
    for path in folder.glob(f".*{PARTIAL}"):
        if _is_abandoned(path):
            path.unlink(missing_ok=True)


def _is_abandoned(partial: Path) -> bool:
    """Whether the process whose number ends the name of a half-written file is gone."""
    host, _, process = partial.name.removesuffix(PARTIAL).rpartition("-")
    if not host.endswith(f".{socket.gethostname()}") or not process.isdigit():
        return _seconds_at_rest(partial) > ABANDONED_SECONDS
    return not _is_running(int(process))


def _seconds_at_rest(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
