"""Archives that are read from front to back -> plain tars, once, in a folder beside the shards under construction.

A tar is whole or absent, and its name holds what it was made of: a resumed run finds and keeps it. Memory holds
one chunk of the archive.
"""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lediflow.data.sources.protocol import Identity, Opened, Progress, file_identity
from lediflow.data.sources.tar import TarSource
from lediflow.disk import whole_or_absent

MEBIBYTE = 2**20


class PackedArchive(Opened):
    """An archive that can only be read from front to back."""

    path: Path

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes whose numbers are in the archive, where it knows."""
        return None

    @abstractmethod
    def unpack(self, tar: BinaryIO) -> Iterator[float]:
        """Write the files to a plain tar; yields the share that is done, now and then."""

    def identity(self) -> Identity:
        return file_identity(self.path)

    def ready(self, scratch: Path, progress: Progress | None = None) -> TarSource:
        return unpacked([self], scratch, progress)[0]


def unpacked(
    archives: Sequence[PackedArchive], scratch: Path, progress: Progress | None = None
) -> list[TarSource]:
    """Each archive as a tar in `scratch`; progress is told in MiB of the archives."""
    targets = [scratch / _target_name(number, archive) for number, archive in enumerate(archives)]
    for outdated in set(scratch.glob("unpacked-*.tar")) - set(targets):
        outdated.unlink()
    sizes = [archive.path.stat().st_size for archive in archives]
    for number, (archive, target) in enumerate(zip(archives, targets, strict=True)):
        if not target.exists():
            with whole_or_absent(target) as tar:
                for share in archive.unpack(tar):
                    _tell(progress, sum(sizes[:number]) + share * sizes[number], sum(sizes))
    return [
        TarSource(target, archive.class_names, origin=archive.path)
        for target, archive in zip(targets, archives, strict=True)
    ]


def _target_name(number: int, archive: PackedArchive) -> str:
    """Changes when the archive is replaced."""
    status = archive.path.stat()
    state = f"{archive.path.name} {status.st_size} {status.st_mtime_ns}"
    return f"unpacked-{number:05d}-{hashlib.sha256(state.encode()).hexdigest()[:16]}.tar"


def _tell(progress: Progress | None, done: float, total: float) -> None:
    if progress:
        progress(math.ceil(done / MEBIBYTE), math.ceil(total / MEBIBYTE))
