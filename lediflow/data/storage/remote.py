"""Addresses with a scheme: http(s)://, s3:// and others that fsspec has a package for.

This is the only module that imports fsspec, which keeps its own connections open and is thread-safe.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lediflow.data.storage.protocol import Read, ShortReadError
from lediflow.errors import UserError

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "az": "adlfs"}


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
