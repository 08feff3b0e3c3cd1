"""Photographs that say MARKER wherever a file can say something besides its pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from PIL import Image

MARKER = "Anna-Musterfrau-47"


def marked_jpeg(image: Image.Image) -> bytes:
    """MARKER in EXIF's description, in EXIF's thumbnail, in XMP, IPTC and a comment."""
    content = saved(image, comment=MARKER, xmp=f"<x:xmpmeta>{MARKER}</x:xmpmeta>".encode())
    thumbnail = saved(image.resize((8, 8)), comment=MARKER)
    iptc = b"\x1c\x02\x50" + struct.pack(">H", len(MARKER)) + MARKER.encode()  # 2:80, by-line
    block = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    segments = [(0xE1, b"Exif\0\0" + exif(thumbnail)), (0xED, b"Photoshop 3.0\0" + block)]
    marked = b"".join(struct.pack(">BBH", 0xFF, kind, len(body) + 2) + body for kind, body in segments)
    return content[:2] + marked + content[2:]


def marked_mpo(image: Image.Image) -> bytes:
    """A second frame with MARKER."""
    second = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    second.info["comment"] = MARKER
    file = io.BytesIO()
    image.save(file, "MPO", save_all=True, append_images=[second])
    return file.getvalue()


def exif(thumbnail: bytes) -> bytes:
    """A description with MARKER in the first directory, the thumbnail in the second."""
    text = MARKER.encode() + b"\0"
    first, second = 8, 8 + 2 + 12 + 4
    end = second + 2 + 24 + 4
    entries = struct.pack("<HHHIII", 1, 270, 2, len(text), end, second)
    entries += struct.pack("<H", 2) + struct.pack("<HHII", 513, 4, 1, end + len(text))
    entries += struct.pack("<HHIII", 514, 4, 1, len(thumbnail), 0)
    return b"II*\0" + struct.pack("<I", first) + entries + text + thumbnail


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def bytes_of(folder: Path) -> bytes:
    """The names and contents of everything in a folder, hidden files too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"\n".join(str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in files)
