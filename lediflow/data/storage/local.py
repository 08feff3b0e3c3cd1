"""A folder, on this machine's disks or on a parallel file system.

Samples are read by byte range, straight into the batch (preadv). Memory-mapped files would be as fast, but a disk error
under a map kills the process, whereas a read raises an OSError. Ranges in shuffled order are slow on a cold disk:
expected files are read once from front to back, which leaves them in the page cache. It is shared by all ranks of the
node, and the kernel frees it when memory is short.
"""

import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from lediflow.data.storage.protocol import Read, ShortReadError

OPEN_FILES = 128  # well below the usual limit of 1,024
CHUNK_BYTES = 4 * 2**20


class LocalFolder:
    """Files below a folder; those of up to `whole_bytes` are read into the page cache when they are expected."""

    def __init__(self, folder: Path, whole_bytes: float = 0):
        self.folder, self.whole_bytes = folder, whole_bytes
        self._open = lru_cache(maxsize=OPEN_FILES)(self._opened)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._expected: list[str] = []
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        return str(self.folder)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def read_into(self, reads: Sequence[Read]) -> None:
        for name, offset, buffer in reads:
            self._fill(name, offset, buffer)

    def _fill(self, name: str, offset: int, buffer: memoryview) -> None:
        file = self._open(name)
        found = os.preadv(file.fileno(), (buffer,), offset)
        while found < len(buffer):  # a signal or a network file system may split a read
            more = os.preadv(file.fileno(), (buffer[found:],), offset + found)
            if not more:
                self._open.cache_clear()  # the file may have been replaced
                raise ShortReadError(name, offset, len(buffer), found)
            found += more

    def copy_to(self, name: str, path: Path) -> None:
        shutil.copyfile(self.folder / name, path)

    def expect(self, names: Sequence[str]) -> None:
        if not self.whole_bytes:
            return
        with self._lock:
            new = [name for name in names if name not in self._expected]
            self._expected = [*names]
        for name in new:
            self._ahead.submit(self._read_through, name)

    def _read_through(self, name: str) -> None:
        path = self.folder / name
        if path.stat().st_size > self.whole_bytes:
            return
        buffer = bytearray(CHUNK_BYTES)
        with path.open("rb", buffering=0) as file:
            while name in self._expected and file.readinto(buffer):
                pass

    def _opened(self, name: str) -> BinaryIO:
        # closed when its last reference goes, so never while another thread reads
        return (self.folder / name).open("rb", buffering=0)  # type: ignore[return-value]
