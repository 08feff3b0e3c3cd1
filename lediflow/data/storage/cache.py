"""Shards of another storage copied to a folder on a node-local disk, up to a size.

A shard is copied whole when it is first read or expected. Processes share the folder: a lock per shard lets one process
copy it while the others wait, and the least recently used shards are removed when the limit is reached. A copy appears
under its name only when it is complete. A shard that is removed while another process reads it stays readable there.
"""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from lediflow.data.storage.local import LocalFolder
from lediflow.data.storage.protocol import Read, Storage
from lediflow.disk import PARTIAL, disk_errors_explained, replacing
from lediflow.errors import UserError

Check = Callable[[str, Path], None]
READ_ATTEMPTS = 10
OWN_FOLDER = "lediflow-shards"  # everything else in the user's folder is left alone


class CachedShards:
    """The storage `source`, read from copies below `folder`; `sizes` are the bytes of its shards by name.

    `identity` is the set's fingerprint: a set remade at the same place, whose shards may have the same names and sizes,
    gets copies of its own. `check(name, path)` may refuse a fresh copy by raising OSError.
    """

    def __init__(
        self,
        source: Storage,
        folder: Path,
        sizes: dict[str, int],
        limit_bytes: float,
        check: Check | None = None,
        identity: str = "",
    ):
        self.source, self.sizes, self.limit_bytes, self.check = source, sizes, limit_bytes, check
        self.folder = folder / OWN_FOLDER
        self.copies = self.folder / hashlib.sha256(f"{source.where}\n{identity}".encode()).hexdigest()[:16]
        largest = max(sizes.values(), default=0)
        if largest > limit_bytes:
            raise UserError(
                f"data.reading.cache_gib={limit_bytes / 2**30:g} is less than the largest shard of {source.where} "
                f"({largest / 2**30:.3g} GiB); raise it, or prepare smaller shards"
            )
        with disk_errors_explained(self.copies):
            self.copies.mkdir(parents=True, exist_ok=True)
        self.local = LocalFolder(self.copies)
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="cache")
        self._present: set[str] = set()  # copies known to exist; another process may evict them
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        return self.source.where

    def read(self, name: str) -> bytes:
        return self.source.read(name)

    def read_into(self, reads: Sequence[Read]) -> None:
        for read in reads:
            self._fill(read)

    def _fill(self, read: Read) -> None:
        for _ in range(READ_ATTEMPTS):  # another process may evict the copy before it is read
            self._ensure(read.name)
            try:
                return self.local.read_into([read])
            except FileNotFoundError:
                self._present.discard(read.name)
        raise OSError(
            f"{self.copies / read.name} keeps vanishing: data.reading.cache_gib is too small for this run"
        )

    def copy_to(self, name: str, path: Path) -> None:
        self.source.copy_to(name, path)

    def expect(self, names: Sequence[str]) -> None:
        with self._lock:
            self._present.clear()  # a new window: copies that still exist are marked as used again
        for name in names:
            self._pool.submit(self._ensure, name)

    def _ensure(self, name: str) -> None:
        if name in self._present:
            return
        path = self.copies / name
        with locked(self.copies / f".{name}.lock"):
            if file_size(path) != self.sizes[name]:
                self._copy(name, path)
            mark_used(path)
        self._present.add(name)

    def _copy(self, name: str, path: Path) -> None:
        with replacing(path, temporary=f".{name}.{self.sizes[name]}.{os.getpid()}{PARTIAL}") as partial:
            with disk_errors_explained(self.folder), locked(self.folder / ".room.lock"):
                make_room(self.folder, self.limit_bytes - self.sizes[name])
                partial.touch()  # its name reserves its size
            with disk_errors_explained(partial):
                self.source.copy_to(name, partial)
            if self.check:
                self.check(name, partial)


def make_room(folder: Path, allowed_bytes: float) -> None:
    """Remove the least recently used copies until at most `allowed_bytes` are in use."""
    # reservations are summed before the copies are listed: a copy finished in between counts twice instead of never
    reserved = sum(map(reserved_bytes, folder.glob(f"*/.*{PARTIAL}")))
    files = sorted(
        folder.glob("*/*.tar"), key=lambda path: path.stat().st_mtime_ns
    )  # only this function removes copies
    used = reserved + sum(map(file_size, files))
    for path in files:
        if used <= allowed_bytes:
            return
        used -= file_size(path)
        path.unlink(missing_ok=True)


def file_size(path: Path) -> int:
    """Size of a file in bytes; -1 if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def mark_used(path: Path) -> None:
    """Set the copy's modification time to now. The kernel's own file timestamps are too coarse to order copies."""
    with suppress(FileNotFoundError):
        os.utime(path, ns=(time.time_ns(), time.time_ns()))


def reserved_bytes(partial: Path) -> int:
    """Size that an unfinished copy reserves; a copy whose process is gone is removed."""
    size, process = partial.name.removesuffix(PARTIAL).split(".")[-2:]
    if psutil.pid_exists(int(process)):
        return int(size)
    partial.unlink(missing_ok=True)
    return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, against the threads and processes of this node."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock
