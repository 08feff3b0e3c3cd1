"""What an image file holds besides its pixels: its orientation, and the file stripped of its metadata.

Metadata is often damaged although the pixels are not: a camera's odd EXIF tag, an editor's truncated text. Pillow
refuses some of these files. So the orientation is read here, from its own tag alone, and a file that Pillow refuses
can be decoded from the parts that its pixels need. Sources: TIFF 6.0 section 2 (EXIF has its structure), PNG 3rd
edition section 5, JPEG (ITU T.81) annex B.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

ORIENTATION, PROFILE = 0x0112, 0x8773  # TIFF tags
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # TIFF types -> formats of struct
TIFF_HEADS = {b"II*\0": "<", b"MM\0*": ">"}
PNG_HEAD, JPEG_HEAD = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
ENTRY_BYTES = 12
# TIFF tags that describe and locate the pixels
PIXEL_TAGS = {
    0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x010A, 0x0111, ORIENTATION, 0x0115, 0x0116, 0x0117, 0x011C, 0x0124,
    0x0125, 0x013D, 0x0140, 0x0142, 0x0143, 0x0144, 0x0145, 0x014C, 0x0152, 0x0153, 0x015B, 0x0211, 0x0212, 0x0213,
    0x0214, PROFILE,
}  # fmt: skip
XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])\b")
MOST_PROFILE_BYTES = 2**25


class Bare(NamedTuple):
    """A file without its metadata, and the removed parts that are still needed."""

    content: bytes
    exif: bytes = b""
    profile: bytes | None = None


class Tag(NamedTuple):
    """An entry of a TIFF's first directory."""

    number: int
    type: int
    length: int  # number of values
    place: int  # offset of its 12 bytes


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Orientation 1 (upright) to 8 from the EXIF tag, else from XMP; 1 if neither is valid."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = TIFF_HEADS.get(exif[:4], "<")
    for tag in tiff_tags(exif):
        if tag.number == ORIENTATION and tag.type in INTEGERS and tag.length:
            (value,) = struct.unpack_from(order + INTEGERS[tag.type], exif, tag.place + 8)
            return value if 1 <= value <= 8 else 1
    found = XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else 1


def tiff_tags(content: bytes) -> Iterator[Tag]:
    """The complete entries of a TIFF's first directory; none for BigTIFF."""
    order = TIFF_HEADS.get(content[:4])
    if order is None or len(content) < 8:
        return
    (directory,) = struct.unpack_from(order + "I", content, 4)
    if directory + 2 > len(content):
        return
    (count,) = struct.unpack_from(order + "H", content, directory)
    for place in range(directory + 2, directory + 2 + count * ENTRY_BYTES, ENTRY_BYTES):
        if place + ENTRY_BYTES > len(content):
            return
        number, kind, length = struct.unpack_from(order + "HHI", content, place)
        yield Tag(number, kind, length, place)


def without_descriptions(content: bytes) -> Bare | None:
    """The file reduced to the parts that its pixels need; None for formats that are not PNG, JPEG or TIFF."""
    if content.startswith(PNG_HEAD):
        return _bare_png(content)
    if content.startswith(JPEG_HEAD):
        return _bare_jpeg(content)
    if content[:4] in TIFF_HEADS:
        return _bare_tiff(content)
    return None


def _bare_png(content: bytes) -> Bare:
    kept, kind, exif, profile, place = [PNG_HEAD], b"", b"", None, len(PNG_HEAD)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 12 + length
        kind, data, check = (
            content[place + 4 : place + 8],
            content[place + 8 : end - 4],
            content[end - 4 : end],
        )
        is_whole = check == struct.pack(">I", zlib.crc32(kind + data))
        if kind[:1].isupper() or kind == b"tRNS":  # a critical chunk, or transparency
            kept.append(content[place:end])
        elif kind == b"eXIf" and is_whole:
            exif = data
        elif kind == b"iCCP" and is_whole:
            profile = _inflated(data.partition(b"\0")[2][1:])
        place = end
        if kind == b"IEND":
            break
    if place < len(content) and kind != b"IEND":  # a truncated chunk: decoding reports it
        kept.append(content[place:])
    return Bare(b"".join(kept), exif, profile)


def _inflated(packed: bytes) -> bytes | None:
    """Decompress a profile; None if it is damaged or implausibly large."""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed, MOST_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


def _bare_jpeg(content: bytes) -> Bare:
    kept, exif, place = [content[:2]], b"", 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker == 0xDA:  # the pixels begin here
            break
        (length,) = struct.unpack_from(">H", content, place + 2)
        segment = content[place : place + 2 + length]
        if segment[4:10] == b"Exif\0\0":
            exif = exif or segment[4:]
        if _is_for_pixels(marker, segment):
            kept.append(segment)
        place += 2 + length
    return Bare(b"".join([*kept, content[place:]]), exif)


def _is_for_pixels(marker: int, segment: bytes) -> bool:
    """Whether decoding needs a segment of a JPEG. Profile segments are kept too: Pillow reads them reliably."""
    if not 0xE0 <= marker <= 0xEF:
        return marker != 0xFE  # a comment
    if segment[4:9] == b"Adobe":
        return len(segment) >= 16
    if segment[4:9] == b"JFIF\0":
        return len(segment) >= 18
    return segment[4:16] == b"ICC_PROFILE\0" and len(segment) >= 18


def _bare_tiff(content: bytes) -> Bare | None:
    tags = list(tiff_tags(content))
    kept = [content[tag.place : tag.place + ENTRY_BYTES] for tag in tags if tag.number in PIXEL_TAGS]
    if not kept:
        return None
    order, bare = TIFF_HEADS[content[:4]], bytearray(content)
    first = tags[0].place
    struct.pack_into(order + "H", bare, first - 2, len(kept))
    directory = b"".join(kept) + bytes(4)  # no further directory
    bare[first : first + len(directory)] = directory
    return Bare(bytes(bare))
