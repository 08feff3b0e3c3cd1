"""Shards of another storage, copied whole when they are first read or expected: into memory or into a cache folder.

One request per shard replaces one per sample, which suits remote storage: a window of shards is read completely anyway.

WholeShards holds them in memory, up to a size. Shards that are no longer expected are evicted, the least recently used
first; shards that do not fit are read by byte range.

CachedShards holds them in a folder on a node-local disk, up to a size. Processes share the folder: a lock per shard
lets one process copy it while the others wait, and the least recently used shards are removed when the limit is
reached. A copy appears under its name only when it is complete. A shard that is removed while another process reads it
stays readable there.
"""

import fcntl
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from lediflow.data.storage.folders import LocalFolder, Read, ShortReadError, Storage
from lediflow.disk import PARTIAL, hash_key, process_exists, replacing
from lediflow.errors import UserError, disk_errors_explained

# (name of a shard, path of its fresh copy); raises OSError to refuse the copy
CopyCheck = Callable[[str, Path], None]
FETCHERS = 4  # threads that fetch shards into memory
READ_ATTEMPTS = 10  # of a copy that other processes may evict before it is read
OWN_FOLDER = "lediflow-shards"  # everything else in the user's folder is left alone


class WholeShards:
    """The storage `source`, read as whole files; `sizes` are the bytes of its shards by name."""

    def __init__(self, source: Storage, sizes: Mapping[str, int], limit_bytes: int):
        self.source, self.sizes, self.limit_bytes = source, sizes, limit_bytes
        self._files: OrderedDict[str, Future[bytes]] = OrderedDict()  # most recently used last
        self._expected: set[str] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")

    @property
    def where(self) -> str:
        return self.source.where

    def read(self, name: str) -> bytes:
        return self.source.read(name)

    def read_into(self, reads: Sequence[Read]) -> None:
        if distant := [read for read in reads if not self._is_filled(read)]:
            self.source.read_into(distant)

    def copy_to(self, name: str, path: Path) -> None:
        self.source.copy_to(name, path)

    def expect(self, names: Sequence[str]) -> None:
        with self._lock:
            self._expected = set(names)
        for name in names:
            self._requested(name)

    @property
    def held_bytes(self) -> int:
        """Size of the files in memory or being fetched."""
        return sum(self.sizes[name] for name in list(self._files))

    def _is_filled(self, read: Read) -> bool:
        """Fill the buffer from memory; False if the file is not held and does not fit."""
        fetched = self._requested(read.name)
        if fetched is None:
            return False
        content, end = self._content(read.name, fetched), read.offset + len(read.buffer)
        if end > len(content):
            found = max(0, len(content) - read.offset)
            raise ShortReadError(read.name, read.offset, len(read.buffer), found)
        read.buffer[:] = memoryview(content)[read.offset : end]
        return True

    def _content(self, name: str, fetched: Future[bytes]) -> bytes:
        try:
            return fetched.result()
        except BaseException:
            with self._lock:  # the next reader tries again
                if self._files.get(name) is fetched:
                    del self._files[name]
            raise

    def _requested(self, name: str) -> Future[bytes] | None:
        with self._lock:
            if name not in self._files:
                if not self._has_room(self.sizes[name]):
                    return None
                self._files[name] = self._pool.submit(self.source.read, name)
            self._files.move_to_end(name)
            return self._files[name]

    def _has_room(self, needed: int) -> bool:
        """Evict files that are not expected until `needed` bytes fit; whether they do."""
        for other in [name for name in self._files if name not in self._expected]:
            if self.held_bytes + needed <= self.limit_bytes:
                break
            del self._files[other]
        return self.held_bytes + needed <= self.limit_bytes


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
        check: CopyCheck | None = None,
        identity: str = "",
    ):
        self.source, self.sizes, self.limit_bytes, self.check = source, sizes, limit_bytes, check
        self.folder = folder / OWN_FOLDER
        self.copies = self.folder / hash_key(f"{source.where}\n{identity}")
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
    # only this function removes copies, so each can be examined
    files = sorted(folder.glob("*/*.tar"), key=lambda path: path.stat().st_mtime_ns)
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
    if process_exists(int(process)):
        return int(size)
    partial.unlink(missing_ok=True)
    return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, against the threads and processes of this node."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock
