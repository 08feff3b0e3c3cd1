"""A compressed tar (.tar.gz, .tgz, .tar.xz, .tar.bz2): to be unpacked before it can be read in any order."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lediflow.data.sources.protocol import SourceError
from lediflow.data.sources.unpacking import PackedArchive

CHUNK_BYTES = 2**22
OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {  # by the first bytes of the file
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}


def is_compressed(head: bytes) -> bool:
    """Whether a file that begins like this is compressed in a way we read."""
    return head.startswith(tuple(OPENERS))


@dataclass
class CompressedTar(PackedArchive):
    """A tar inside a stream that can only be read from front to back."""

    path: Path

    def unpack(self, tar: BinaryIO) -> Iterator[float]:
        length = self.path.stat().st_size
        with self.path.open("rb") as packed:
            for chunk in self._chunks(packed):
                tar.write(chunk)
                yield packed.tell() / length

    def _chunks(self, packed: BinaryIO) -> Iterator[bytes]:
        magic = packed.read(8)
        packed.seek(0)
        opener = next(opener for begins, opener in OPENERS.items() if magic.startswith(begins))
        try:
            with opener(packed) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(
                f"source={self.path} cannot be decompressed ({error}); copy it again, or unpack it yourself "
                "and give the folder"
            ) from error
