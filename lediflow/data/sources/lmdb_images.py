"""Photographs in an LMDB: key -> content of an image file, as LSUN and StyleGAN's tools write. The only home of lmdb.

An entry's name is its key, with the extension of the image where the key has none. Values that are no images,
such as a stored length, are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from lediflow.data.sources.magic import HEAD_BYTES, image_extension
from lediflow.data.sources.protocol import (
    DirectSource,
    Entry,
    Identity,
    SourceError,
    file_identity,
    has_image_name,
)

LISTED_AT_ONCE = 4096  # then the file is mapped anew: pages that were looked at would count as our memory


@dataclass
class LmdbSource(DirectSource):
    """Values of an LMDB: a folder with data.mdb, or such a file."""

    path: Path

    def identity(self) -> Identity:
        return file_identity(self.path / "data.mdb" if self.path.is_dir() else self.path)

    @cached_property
    def environment(self) -> Any:
        lmdb = _lmdb()
        try:
            return lmdb.open(
                str(self.path), subdir=self.path.is_dir(), readonly=True, lock=False, readahead=False
            )
        except lmdb.Error as error:
            raise SourceError(
                f"source={self.path} cannot be read as an LMDB ({error}); copy it again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # an open file does not travel

    def entries(self) -> Iterator[Entry]:
        key: bytes | None = b""
        while key is not None:
            page, key = self._page(key)
            yield from page

    def read(self, entry: Entry) -> bytes:
        with self.environment.begin() as transaction:
            whole, stem = (_key(name) for name in (entry.name, entry.name.rpartition(".")[0]))
            content = transaction.get(whole) or (transaction.get(stem) if stem else None)
        if content is None:
            raise OSError("its key is gone")
        return content

    def _page(self, begin: bytes) -> tuple[list[Entry], bytes | None]:
        """Some entries from a key on, and the key that comes after them."""
        page: list[Entry] = []
        with self.environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            cursor.set_range(begin) if begin else cursor.first()
            for key, value in cursor:
                if len(page) == LISTED_AT_ONCE:
                    following = bytes(key)
                    break
                page.append(Entry(_name(bytes(key), bytes(value[:HEAD_BYTES])), len(value)))
            else:
                following = None
        self.environment.close()
        del self.environment
        return page, following


def _name(key: bytes, head: bytes) -> str:
    name = key.decode(errors="surrogateescape")
    return name if has_image_name(name) else name + (image_extension(head) or "")


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
