"""Photographs in an uncompressed tar, read at their offsets, with the labels of the files beside them (pairing.py)."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lediflow.data.sources.pairing import labelled, refusals_named
from lediflow.data.sources.protocol import (
    DirectSource,
    Entry,
    Identity,
    SourceError,
    file_identity,
)

CHUNK_BYTES = 2**20


@dataclass
class TarSource(DirectSource):
    """Files of an uncompressed tar."""

    path: Path
    class_names: list[str] | None = None
    origin: Path | None = None  # what it was unpacked from, for messages

    def identity(self) -> Identity:
        return file_identity(self.path)

    def entries(self) -> Iterator[Entry]:
        try:
            with tarfile.open(self.path, "r:") as archive:
                files = list(_files(archive))
                check_end(self.path, archive.offset)
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(
                f"source={self.origin or self.path} cannot be read as an archive or table of images ({error}); "
                "copy it again, or unpack it and give the folder"
            ) from error
        with refusals_named(self.origin or self.path):
            yield from labelled(files, self.read)

    def read(self, entry: Entry) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(entry.offset)
            return stream.read(entry.bytes)


def check_end(path: Path, offset: int) -> None:
    """Refuse a tar that has anything but its end mark where tarfile stopped.

    tarfile takes any block that is no header for the end, and so would lose all files behind a damaged one.
    """
    with path.open("rb") as stream:
        stream.seek(offset)
        mark = stream.read(tarfile.BLOCKSIZE)
        rest = iter(lambda: stream.read(CHUNK_BYTES), b"")
        if mark != bytes(tarfile.BLOCKSIZE) or any(any(chunk) for chunk in rest):
            raise tarfile.ReadError(
                f"no end mark behind its last readable file, at byte {offset}: it was cut, or is damaged there"
            )


def _files(archive: tarfile.TarFile) -> Iterator[Entry]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every one
        if member.isfile() or member.islnk() or member.issym():
            yield Entry(member.name, member.size, member.offset_data, is_link=not member.isfile())
