"""Archives that can only be read from front to back are first written out as plain tars, in the set's `.parts` folder.

A tar is whole or absent, and its name is derived from the archive's name, size and modification time: a resumed run
finds and keeps it. Memory holds one chunk of the archive. CompressedTar is such an archive (.tar.gz, .tgz, .tar.xz,
.tar.bz2); Parquet files are another (parquet.py).
"""

import bz2
import gzip
import hashlib
import lzma
import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lediflow.data.sources.archive_files import TarSource
from lediflow.data.sources.protocol import Identity, Opened, SourceError, file_identity
from lediflow.data.workers import Progress
from lediflow.disk import whole_or_absent

MEBIBYTE = 2**20
CHUNK_BYTES = 2**22
# by the first bytes of the file
OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}


class PackedArchive(Opened):
    """An archive that can only be read from front to back."""

    path: Path

    @property
    def class_names(self) -> list[str] | None:
        """Names of the archive's numeric classes, if it has them."""
        return None

    @abstractmethod
    def unpack(self, tar: BinaryIO) -> Iterator[float]:
        """Write the files to a plain tar, yielding the finished fraction from time to time."""

    def identity(self) -> Identity:
        return file_identity(self.path)

    def ready(self, scratch: Path, progress: Progress | None = None) -> TarSource:
        return unpacked([self], scratch, progress)[0]


def unpacked(
    archives: Sequence[PackedArchive], scratch: Path, progress: Progress | None = None
) -> list[TarSource]:
    """Unpack each archive to a tar in `scratch`; progress counts MiB of the archives."""
    targets = [scratch / _target_name(number, archive) for number, archive in enumerate(archives)]
    for outdated in set(scratch.glob("unpacked-*.tar")) - set(targets):
        outdated.unlink()
    sizes = [archive.path.stat().st_size for archive in archives]
    for number, (archive, target) in enumerate(zip(archives, targets, strict=True)):
        if not target.exists():
            with whole_or_absent(target) as tar:
                for share in archive.unpack(tar):
                    _report(progress, sum(sizes[:number]) + share * sizes[number], sum(sizes))
    return [
        TarSource(target, archive.class_names, origin=archive.path)
        for target, archive in zip(targets, archives, strict=True)
    ]


def _target_name(number: int, archive: PackedArchive) -> str:
    """A name that changes when the archive is replaced."""
    status = archive.path.stat()
    state = f"{archive.path.name} {status.st_size} {status.st_mtime_ns}"
    return f"unpacked-{number:05d}-{hashlib.sha256(state.encode()).hexdigest()[:16]}.tar"


def _report(progress: Progress | None, done: float, total: float) -> None:
    if progress:
        progress(math.ceil(done / MEBIBYTE), math.ceil(total / MEBIBYTE))


def is_compressed(head: bytes) -> bool:
    """Whether a file with these first bytes is compressed in a supported format."""
    return head.startswith(tuple(OPENERS))


@dataclass
class CompressedTar(PackedArchive):
    """A compressed tar."""

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
