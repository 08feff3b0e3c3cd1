"""The interface of every storage. Names are those of files in the set's folder. Storages are thread-safe."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


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
