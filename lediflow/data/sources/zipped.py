"""Photographs in a zip archive, read at their offsets, with the labels of the files beside them (pairing.py).

The archive's directory is read once, for the listing. Reading it again for every shard would cost each process
memory and time in proportion to the whole archive, so a file is found by its offset and its own header.
Source: PKWARE's APPNOTE.TXT 6.3, section 4.3.7 (local file header).
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lediflow.data.sources.pairing import labelled, refusals_named
from lediflow.data.sources.protocol import DirectSource, Entry, Identity, SourceError, file_identity

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
SIGNATURE = b"PK\x03\x04"
HAS_PASSWORD = 1 << 0
CHECKSUM_FOLLOWS = 1 << 3  # behind the file instead of in its header
CHUNK_BYTES = 2**16


@dataclass
class ZipSource(DirectSource):
    """Files of a zip archive."""

    path: Path

    def identity(self) -> Identity:
        return file_identity(self.path)

    def entries(self) -> Iterator[Entry]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                files = [_entry(item) for item in archive.infolist() if not item.is_dir()]
        except zipfile.BadZipFile as error:
            raise SourceError(
                f"source={self.path} cannot be read as a .zip ({error}); copy it again, or unpack it and give "
                "the folder"
            ) from error
        with refusals_named(self.path):
            yield from labelled(files, self.read)

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


def _entry(item: zipfile.ZipInfo) -> Entry:
    is_link = stat.S_ISLNK(item.external_attr >> 16)
    return Entry(item.filename, item.file_size, item.header_offset, is_link=is_link)


class LocalHeader(NamedTuple):
    """What stands in front of each file."""

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
        while not inflater.eof and (chunk := stream.read(CHUNK_BYTES)):
            pieces.append(inflater.decompress(chunk))
    except zlib.error as error:
        raise OSError(f"damaged in the archive: {error}") from error
    return b"".join(pieces)
