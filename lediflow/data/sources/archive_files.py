"""Archives in one file: an uncompressed tar, or a zip. Members are read at their offsets.

Label files inside an archive become the labels of the pictures they belong to (pairing.py).

A zip's directory is read once, when the archive is listed. Reading it again for every shard would cost each process
memory and time in proportion to the whole archive, so a member is found by its offset and its local header.
Source: PKWARE's APPNOTE.TXT 6.3, section 4.3.7 (local file header).
"""

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lediflow.data.sources.pairing import labelled, refusals_named
from lediflow.data.sources.protocol import DirectSource, Entry, Identity, SourceError, file_identity

TAR_CHUNK_BYTES = 2**20
ZIP_CHUNK_BYTES = 2**16
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
SIGNATURE = b"PK\x03\x04"
HAS_PASSWORD = 1 << 0
UTF8_NAME = 1 << 11
# systems whose file names cannot contain a backslash: MS-DOS, Windows NTFS, VFAT (APPNOTE.TXT, section 4.4.2.2)
WINDOWS = (0, 10, 14)
CHECKSUM_FOLLOWS = 1 << 3  # the checksum comes after the file instead of in its header


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
            header = _header(stream)
            if header.flags & HAS_PASSWORD:
                raise OSError("the archive has a password")
            stream.seek(header.name_length + header.extra_length, os.SEEK_CUR)
            content = _content(stream, header.method, entry.bytes)
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


def _header(stream: BinaryIO) -> LocalHeader:
    content = stream.read(LOCAL_HEADER.size)
    if len(content) < LOCAL_HEADER.size or not content.startswith(SIGNATURE):
        raise OSError("the archive's directory points to something that is no file")
    return LocalHeader(*LOCAL_HEADER.unpack(content))


def _content(stream: BinaryIO, method: int, length: int) -> bytes:
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
