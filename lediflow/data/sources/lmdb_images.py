"""Photographs in an LMDB: key -> content of an image file, as written by LSUN and StyleGAN's tools.

This is the only module that imports lmdb. An entry's name is its key, with the image's extension if the key has none.
Values that are not images, such as a stored length, are skipped. The file is mapped again for each read, which takes
60 us: pages of a file that stays mapped count as this process's memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lediflow.data.sources.names import HEAD_BYTES, image_extension, is_picture_name
from lediflow.data.sources.protocol import (
    DirectSource,
    Entry,
    Identity,
    SourceError,
    file_identity,
)

LISTED_AT_ONCE = 4096


@dataclass
class LmdbSource(DirectSource):
    """Values of an LMDB: a folder with a data.mdb, or such a file."""

    path: Path

    def identity(self) -> Identity:
        return file_identity(self.path / "data.mdb" if self.path.is_dir() else self.path)

    def entries(self) -> Iterator[Entry]:
        key: bytes | None = b""
        while key is not None:
            page, key = self._page(key)
            yield from page

    def read(self, entry: Entry) -> bytes:
        whole, stem = (_key(name) for name in (entry.name, entry.name.rpartition(".")[0]))
        try:
            with self._reading() as transaction:
                content = transaction.get(whole) or (transaction.get(stem) if stem else None)
        except SourceError as error:
            raise OSError(str(error)) from error
        if content is None:
            raise OSError("its key is gone")
        return content

    def _page(self, begin: bytes) -> tuple[list[Entry], bytes | None]:
        """Up to LISTED_AT_ONCE entries from a key on, and the key after them (None at the end)."""
        page: list[Entry] = []
        with self._reading(buffers=True) as transaction, transaction.cursor() as cursor:
            cursor.set_range(begin) if begin else cursor.first()
            for key, value in cursor:
                if len(page) == LISTED_AT_ONCE:
                    following = bytes(key)
                    break
                page.append(Entry(_name(bytes(key), bytes(value[:HEAD_BYTES])), len(value)))
            else:
                following = None
        return page, following

    @contextmanager
    def _reading(self, buffers: bool = False) -> Iterator[Any]:
        """A read transaction on the file, which is mapped for its duration only."""
        lmdb, is_folder = _lmdb(), self.path.is_dir()
        try:
            with (
                lmdb.open(
                    str(self.path), subdir=is_folder, readonly=True, lock=False, readahead=False
                ) as environment,
                environment.begin(buffers=buffers) as transaction,
            ):
                yield transaction
        except lmdb.Error as error:
            raise SourceError(
                f"source={self.path} cannot be read as an LMDB ({error}); copy it again"
            ) from error


def _name(key: bytes, head: bytes) -> str:
    name = key.decode(errors="surrogateescape")
    return name if is_picture_name(name) else name + (image_extension(head) or "")


def _key(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _lmdb() -> ModuleType:
    try:
        import lmdb
    except ImportError as error:
        raise SourceError(
            "reading an LMDB needs the package lmdb: pip install 'lediflow[sources]'"
        ) from error
    return lmdb
