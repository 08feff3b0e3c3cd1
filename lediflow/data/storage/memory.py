"""Shards of another storage held whole in memory, the ones used last, up to a size.

One request for a shard instead of one for each of its samples: what distant storage needs when a window of
shards is read completely anyway. Expected shards are fetched ahead by threads.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lediflow.data.storage.protocol import Read, ShortReadError, Storage

FETCHERS = 4


class WholeShards:
    """The storage `source`, asked for whole files only."""

    def __init__(self, source: Storage, limit_bytes: int):
        self.source, self.limit_bytes = source, limit_bytes
        self._files: OrderedDict[str, Future[bytes]] = OrderedDict()  # the one used last at the end
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")

    @property
    def where(self) -> str:
        return self.source.where

    def read(self, name: str) -> bytes:
        return self.source.read(name)

    def read_into(self, reads: Sequence[Read]) -> None:
        for name, offset, buffer in reads:
            content = self._content(name)
            if offset + len(buffer) > len(content):
                raise ShortReadError(name, offset, len(buffer), max(0, len(content) - offset))
            buffer[:] = memoryview(content)[offset : offset + len(buffer)]

    def copy_to(self, name: str, path: Path) -> None:
        self.source.copy_to(name, path)

    def expect(self, names: Sequence[str]) -> None:
        for name in names:
            self._requested(name)

    @property
    def held_bytes(self) -> int:
        """Size of the files in memory."""
        with self._lock:
            return sum(map(_size, self._files.values()))

    def _content(self, name: str) -> bytes:
        fetched = self._requested(name)
        try:
            content = fetched.result()
        except BaseException:
            with self._lock:  # the next reader tries again
                if self._files.get(name) is fetched:
                    del self._files[name]
            raise
        self._make_room(name)
        return content

    def _requested(self, name: str) -> Future[bytes]:
        with self._lock:
            if name not in self._files:
                self._files[name] = self._pool.submit(self.source.read, name)
            self._files.move_to_end(name)
            return self._files[name]

    def _make_room(self, name: str) -> None:
        with self._lock:
            held = sum(map(_size, self._files.values()))
            for other in [*self._files]:
                if held <= self.limit_bytes:
                    return
                if other != name and self._files[other].done():
                    held -= _size(self._files.pop(other))


def _size(file: Future[bytes]) -> int:
    fetched = file.done() and not file.cancelled() and file.exception() is None
    return len(file.result()) if fetched else 0
