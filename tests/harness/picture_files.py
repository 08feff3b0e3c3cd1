"""Picture files and colour profiles written byte by byte, as their specifications have them.

PNG 3rd edition, TIFF 6.0 section 2, ICC.1:2001-04 (version 2 profiles).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}  # of TIFF's types, in bytes
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG's types of colour
D50 = (0.9642, 1.0, 0.8249)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
WHITE_D65 = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])


def chunk(kind: bytes, data: bytes, check: int | None = None) -> bytes:
    """A piece of a PNG; `check` in place of its right checksum."""
    crc = zlib.crc32(kind + data) if check is None else check
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(rows: Sequence[bytes], width: int, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG of these packed rows, with chunks between its header and its pixels."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


Tag = tuple[int, int, bytes]  # number, type, values


def tiff(
    planes: Sequence[bytes],
    size: tuple[int, int],
    tags: dict[int, Sequence[int]],
    order: str = "<",
    *odd: bytes,
) -> bytes:
    """An uncompressed TIFF with these SHORT tags; `odd` are whole entries of its directory."""
    width, height = size
    numbers = {256: [width], 257: [height], 259: [1], 278: [height], 277: [len(tags[258])], **tags}
    entries = [(number, 3, struct.pack(f"{order}{len(v)}H", *v)) for number, v in numbers.items()]
    count = len(entries) + 2 + len(odd)
    place = 8 + 2 + 12 * count + 4
    outside = b"".join(values for _, _, values in entries if len(values) > 4)
    starts, start = [], place + len(outside) + 8 * len(planes) * (len(planes) > 1)
    for plane in planes:
        starts.append(start)
        start += len(plane)
    for number, values in ((273, starts), (279, list(map(len, planes)))):
        entries.append((number, 4, struct.pack(f"{order}{len(values)}I", *values)))
    packed, blob = list(odd), b""
    for number, kind, values in entries:
        head = struct.pack(f"{order}HHI", number, kind, len(values) // SIZES[kind])
        if len(values) > 4:
            packed.append(head + struct.pack(f"{order}I", place + len(blob)))
            blob += values
        else:
            packed.append(head + values.ljust(4, b"\0"))
    packed.sort(key=lambda entry: struct.unpack_from(f"{order}H", entry))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", count) + b"".join(packed) + bytes(4)
    return mark + struct.pack(f"{order}I", 8) + directory + blob + b"".join(planes)


def exif(orientation: int, *odd: bytes, order: str = "<") -> bytes:
    """EXIF with an orientation and other entries, sorted as they must be."""
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    entries = sorted([entry, *odd], key=lambda entry: struct.unpack_from(f"{order}H", entry))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return mark + struct.pack(f"{order}I", 8) + directory + bytes(16)


def rgb_to_xyz(primaries: Sequence[tuple[float, float]]) -> np.ndarray:
    """Linear RGB of these (x, y) primaries and a D65 white -> XYZ."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, WHITE_D65)


SRGB = rgb_to_xyz([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)])
ADOBE = rgb_to_xyz([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)])
DISPLAY_P3 = rgb_to_xyz([(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)])
ADOBE_GAMMA = 563 / 256


def adapted(white: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Bradford's adaptation of XYZ from one white to another."""
    gains = (BRADFORD @ target) / (BRADFORD @ white)
    return np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD


def srgb_decoded(levels: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: 0...1 -> linear."""
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def srgb_levels(xyz: np.ndarray) -> np.ndarray:
    """XYZ under D65, in its last axis -> sRGB of 0...255."""
    linear = (xyz @ np.linalg.inv(SRGB).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def lab_levels(lab: Sequence[float]) -> np.ndarray:
    """CIELAB under D50 -> sRGB of 0...255."""
    lightness, a, b = lab
    f = np.array([(lightness + 16) / 116 + a / 500, (lightness + 16) / 116, (lightness + 16) / 116 - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50
    return srgb_levels(adapted(np.array(D50), WHITE_D65) @ xyz)


def matrix_profile(matrix: np.ndarray, curve: bytes) -> bytes:
    """A display's profile of three primaries and one curve."""
    columns = (adapted(WHITE_D65, np.array(D50)) @ matrix).T
    tags = {f"{name}XYZ".encode(): xyz(column) for name, column in zip("rgb", columns, strict=True)}
    return profile(b"mntr", b"RGB ", b"XYZ ", tags | {f"{name}TRC".encode(): curve for name in "rgb"})


def grey_profile(curve: bytes) -> bytes:
    return profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})


def cmyk_profile(lab: Callable[[tuple[int, int, int, int]], Sequence[float]]) -> bytes:
    """A printer's profile with a table of two values for each ink."""
    inks = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    ramp = bytes(range(256))
    table = b"".join(
        bytes([round(lightness * 2.55), round(a) + 128, round(b) + 128]) for lightness, a, b in map(lab, inks)
    )
    matrix = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + table + ramp * 3
    return profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def gamma_curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def srgb_curve() -> bytes:
    """In a table of 1,024 values, as common sRGB profiles have it."""
    values = (65535 * srgb_decoded(np.linspace(0, 1, 1024))).round().astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + values.tobytes()


def xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(79)
    tags = {b"desc": text, b"wtpt": xyz(D50), **tags}
    table, body, place = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02400000, kind, space, connection)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in D50))
    content = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(content)) + content[4:]


def gif_durations(source: Path | BytesIO) -> list[int]:
    """Milliseconds of each frame of a GIF."""
    with Image.open(source) as gif:
        found = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            found.append(gif.info["duration"])
        return found
