"""What every storage can do. Names are those of files in the set's folder; threads may share a storage."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class Read(NamedTuple):
    """A range of a file's bytes, and where they go."""

    name: str
    offset: int
    buffer: memoryview  # bytes, contiguous; its length is the range's


class ShortReadError(OSError):
    """A file ended before the bytes that were asked for."""

    def __init__(self, name: str, offset: int, expected: int, found: int):
        super().__init__(f"{name} ends early: {found} of {expected} bytes at offset {offset}")


class Storage(Protocol):
    """The files of one set. Every method raises OSError or TimeoutError where it cannot do its work."""

    @property
    def where(self) -> str:
        """The folder or address, for messages."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file."""
        ...

    def read_into(self, reads: Sequence[Read]) -> None:
        """Fill every buffer; those of one batch come together, so that distant ones travel side by side."""
        ...

    def copy_to(self, name: str, path: Path) -> None:
        """Write a whole file to a local path, without holding it in memory."""
        ...

    def expect(self, names: Sequence[str]) -> None:
        """A hint that these files are read soon, in this order; returns at once."""
        ...
