"""Shards of another storage held whole in memory, up to a size.

One request per shard replaces one per sample, which suits remote storage: a window of shards is read completely anyway.
Threads prefetch expected shards. Shards that are no longer expected are evicted, the least recently used first; shards
that do not fit are read by byte range.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lediflow.data.storage.protocol import Read, ShortReadError, Storage

FETCHERS = 4


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
        with self._lock:
            return self._held()

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
            if self._held() + needed <= self.limit_bytes:
                break
            del self._files[other]
        return self._held() + needed <= self.limit_bytes

    def _held(self) -> int:
        return sum(self.sizes[name] for name in self._files)
