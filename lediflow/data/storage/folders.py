"""The files of a set where they lie: the interface of every storage, a local folder, and an address.

LocalFolder: this machine's disks, or a parallel file system. Samples are read by byte range, straight into the batch
(preadv). Memory-mapped files would be as fast, but a disk error under a map kills the process, whereas a read raises an
OSError. Ranges in shuffled order are slow on a cold disk: expected files are read once from front to back, which leaves
them in the page cache. It is shared by all ranks of the node, and the kernel frees it when memory is short.

RemoteFolder: http(s)://, s3:// and other schemes that fsspec has a package for. This is the only module that imports
fsspec, which keeps its own connections open and is thread-safe.
"""

import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from lediflow.errors import UserError

OPEN_FILES = 128  # well below the usual limit of 1,024
CHUNK_BYTES = 4 * 2**20
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "az": "adlfs"}


class Read(NamedTuple):
    """A range of a file's bytes, and the buffer to read it into."""

    name: str
    offset: int
    buffer: memoryview  # of bytes, contiguous; its length is that of the range


class ShortReadError(OSError):
    """A file ended before the end of the requested range."""

    def __init__(self, name: str, offset: int, expected: int, found: int):
        super().__init__(f"{name} ends early: {found} of {expected} bytes at offset {offset}")


class Storage(Protocol):
    """The files of one set. Every method raises OSError or TimeoutError if it fails."""

    @property
    def where(self) -> str:
        """The folder or address, for messages."""
        ...

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        ...

    def read_into(self, reads: Sequence[Read]) -> None:
        """Fill every buffer. A batch is read in one call, so that remote ranges are fetched concurrently."""
        ...

    def copy_to(self, name: str, path: Path) -> None:
        """Copy a whole file to a local path, without holding it in memory."""
        ...

    def expect(self, names: Sequence[str]) -> None:
        """Hint that these files will be read soon, in this order; returns at once."""
        ...


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


def is_remote(path: str) -> bool:
    """Whether a path is an address with a scheme."""
    return "://" in path


class RemoteFolder:
    """Files below an address."""

    def __init__(self, address: str, options: dict[str, Any] | None = None):
        self.address = address.rstrip("/")
        self.files, self.root = _opened(self.address, options or {})
        self._knows_ranges = False

    @property
    def where(self) -> str:
        return self.address

    def read(self, name: str) -> bytes:
        return self.files.cat_file(self._path(name))

    def read_into(self, reads: Sequence[Read]) -> None:
        self._check_ranges(reads[0])
        paths = [self._path(read.name) for read in reads]
        ends = [read.offset + len(read.buffer) for read in reads]
        contents = self.files.cat_ranges(paths, [read.offset for read in reads], ends, on_error="raise")
        for (name, offset, buffer), content in zip(reads, contents, strict=True):
            if len(content) != len(buffer):
                raise ShortReadError(name, offset, len(buffer), len(content))
            buffer[:] = content

    def copy_to(self, name: str, path: Path) -> None:
        self.files.get_file(self._path(name), str(path))

    def expect(self, names: Sequence[str]) -> None:
        """Do nothing: the memory or cache folder in front of this storage fetches ahead."""

    def _check_ranges(self, read: Read) -> None:
        """UserError if the server answers a range with the whole file; checked once, with one byte."""
        if not self._knows_ranges and len(read.buffer) > 1:
            found = len(self.files.cat_file(self._path(read.name), start=read.offset, end=read.offset + 1))
            if found > 1:
                raise UserError(
                    f"{self.address} ignores byte ranges: asked for 1 byte of {read.name} it sent {found}; use "
                    "data.reading.method=whole, or data.reading.cache=FOLDER on this node's own disk"
                )
            self._knows_ranges = True

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


def _opened(address: str, options: dict[str, Any]) -> tuple[Any, str]:
    import fsspec

    scheme = address.partition("://")[0]
    try:
        files, root = fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        package = PACKAGES.get(scheme, f"fsspec's package for {scheme}")
        raise UserError(f"reading {address} needs {package}: pip install {package}") from error
    except ValueError as error:
        known = ", ".join(sorted(PACKAGES))
        raise UserError(f"{address} has a scheme that fsspec does not know; use one of {known}") from error
    return files, str(root).rstrip("/")
