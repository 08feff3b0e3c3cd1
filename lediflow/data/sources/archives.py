"""Archives in one file: a tar or a zip is read in place; what can only be read from front to back is unpacked first.

Members of an uncompressed tar and of a zip are read at their offsets. Label files inside an archive become the labels
of the pictures they belong to (labels.py).

A zip's directory is read once, when the archive is listed. Reading it again for every shard would cost each process
memory and time in proportion to the whole archive, so a member is found by its offset and its local header.
Source: PKWARE's APPNOTE.TXT 6.3, section 4.3.7 (local file header).

A PackedArchive can only be read from front to back. It is first written out as a plain tar, in the set's `.parts`
folder. A tar is whole or absent, and its name is derived from the archive's name, size and modification time: a resumed
run finds and keeps it. Memory holds one chunk of the archive. CompressedTar is such an archive (.tar.gz, .tgz, .tar.xz,
.tar.bz2); Parquet files are another (tables.py).
"""

import bz2
import gzip
import lzma
import math
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lediflow.data.sources.labels import labelled, refusals_named
from lediflow.data.sources.protocol import DirectSource, Entry, Identity, Opened, SourceError, file_identity
from lediflow.data.workers import OnProgress
from lediflow.disk import hash_key, whole_or_absent

TAR_CHUNK_BYTES = 2**20
ZIP_CHUNK_BYTES = 2**16
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
ZIP_SIGNATURE = b"PK\x03\x04"
HAS_PASSWORD = 1 << 0
UTF8_NAME = 1 << 11
# systems whose file names cannot contain a backslash: MS-DOS, Windows NTFS, VFAT (APPNOTE.TXT, section 4.4.2.2)
WINDOWS = (0, 10, 14)
CHECKSUM_FOLLOWS = 1 << 3  # the checksum comes after the file instead of in its header
MEBIBYTE = 2**20
UNPACK_CHUNK_BYTES = 2**22
# by the first bytes of the file
OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}


class LocalHeader(NamedTuple):
    """The header in front of each file of a zip."""

    signature: bytes
    version: int
    flags: int
    method: int
    time: int
    date: int
    crc32: int
    packed_bytes: int
    bytes: int
    name_length: int
    extra_length: int


@dataclass
class ArchiveFile(DirectSource):
    """An archive in one file whose members are read at their offsets."""

    path: Path
    class_names: list[str] | None = None
    origin: Path | None = None  # the file that was unpacked into this one, for messages

    @abstractmethod
    def members(self) -> list[Entry]:
        """Every file in the archive; SourceError if the archive cannot be read."""

    def identity(self) -> Identity:
        return file_identity(self.path)

    def entries(self) -> Iterator[Entry]:
        members = self.members()
        with refusals_named(self.shown_path):
            yield from labelled(members, self.read)

    @property
    def shown_path(self) -> Path:
        """The path for messages: the file that the user gave."""
        return self.origin or self.path


class TarSource(ArchiveFile):
    """Files of an uncompressed tar."""

    def members(self) -> list[Entry]:
        try:
            with tarfile.open(self.path, "r:") as archive:
                files = list(_tar_members(archive))
                check_end(self.path, archive.offset)
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(
                f"source={self.shown_path} cannot be read as an archive or table of images ({error}); "
                "copy it again, or unpack it and give the folder"
            ) from error
        return files

    def read(self, entry: Entry) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(entry.offset)
            return stream.read(entry.bytes)


class ZipSource(ArchiveFile):
    """Files of a zip archive."""

    def members(self) -> list[Entry]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [_zip_member(item) for item in archive.infolist()]
        except zipfile.BadZipFile as error:
            raise SourceError(
                f"source={self.path} cannot be read as a .zip ({error}); copy it again, or unpack it and give "
                "the folder"
            ) from error
        return [member for member in members if not member.name.endswith("/")]

    def read(self, entry: Entry) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(entry.offset)
            header = _zip_header(stream)
            if header.flags & HAS_PASSWORD:
                raise OSError("the archive has a password")
            stream.seek(header.name_length + header.extra_length, os.SEEK_CUR)
            content = _zip_content(stream, header.method, entry.bytes)
        is_known = not header.flags & CHECKSUM_FOLLOWS
        if len(content) != entry.bytes or (is_known and zlib.crc32(content) != header.crc32):
            raise OSError("damaged in the archive: length or checksum is not what the archive says")
        return content


def check_end(path: Path, offset: int) -> None:
    """Raise tarfile.ReadError unless there is nothing but the end mark at `offset`, where tarfile stopped.

    tarfile takes any block that is not a header for the end, and would lose all files after a damaged header.
    """
    with path.open("rb") as stream:
        stream.seek(offset)
        mark = stream.read(tarfile.BLOCKSIZE)
        rest = iter(lambda: stream.read(TAR_CHUNK_BYTES), b"")
        if mark != bytes(tarfile.BLOCKSIZE) or any(any(chunk) for chunk in rest):
            raise tarfile.ReadError(
                f"no end mark after its last readable file, at byte {offset}: it is truncated, or damaged there"
            )


def _tar_members(archive: tarfile.TarFile) -> Iterator[Entry]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every one
        if member.isfile() or member.islnk() or member.issym():
            yield Entry(member.name, member.size, member.offset_data, is_link=not member.isfile())


def _zip_member(item: zipfile.ZipInfo) -> Entry:
    is_link = stat.S_ISLNK(item.external_attr >> 16)
    return Entry(_member_name(item), item.file_size, item.header_offset, is_link=is_link)


def _member_name(item: zipfile.ZipInfo) -> str:
    """A member's path with forward slashes.

    Some Windows programs separate folders by backslashes, against APPNOTE.TXT 4.4.17. As in Info-ZIP's unzip, a
    backslash is a separator in names without a slash that were written on Windows; anywhere else it is part of the
    name (Python's zipfile converts on Windows alone). In names of an unknown encoding it may be half of a Shift-JIS
    character.
    """
    has_known_encoding = item.filename.isascii() or bool(item.flag_bits & UTF8_NAME)
    if item.create_system in WINDOWS and has_known_encoding and "/" not in item.filename:
        return item.filename.replace("\\", "/")
    return item.filename


def _zip_header(stream: BinaryIO) -> LocalHeader:
    content = stream.read(LOCAL_HEADER.size)
    if len(content) < LOCAL_HEADER.size or not content.startswith(ZIP_SIGNATURE):
        raise OSError("the archive's directory points to something that is not a file")
    return LocalHeader(*LOCAL_HEADER.unpack(content))


def _zip_content(stream: BinaryIO, method: int, length: int) -> bytes:
    if method == zipfile.ZIP_STORED:
        return stream.read(length)
    if method != zipfile.ZIP_DEFLATED:
        raise OSError(f"packed by the uncommon zip method {method}")
    inflater, pieces = zlib.decompressobj(-zlib.MAX_WBITS), []
    try:
        while not inflater.eof and (chunk := stream.read(ZIP_CHUNK_BYTES)):
            pieces.append(inflater.decompress(chunk))
    except zlib.error as error:
        raise OSError(f"damaged in the archive: {error}") from error
    return b"".join(pieces)


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

    def ready(self, scratch: Path, progress: OnProgress | None = None) -> TarSource:
        return unpacked([self], scratch, progress)[0]


def unpacked(
    archives: Sequence[PackedArchive], scratch: Path, progress: OnProgress | None = None
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
    return f"unpacked-{number:05d}-{hash_key(state)}.tar"


def _report(progress: OnProgress | None, done: float, total: float) -> None:
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
                while chunk := stream.read(UNPACK_CHUNK_BYTES):
                    yield chunk
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(
                f"source={self.path} cannot be decompressed ({error}); copy it again, or unpack it yourself "
                "and give the folder"
            ) from error
