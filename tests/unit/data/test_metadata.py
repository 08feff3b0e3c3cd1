"""Damaged metadata does not make pixels unusable; damaged pixels are refused."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from harness.picture_files import (
    ADOBE,
    ADOBE_GAMMA,
    RGB,
    chunk,
    exif,
    gamma_curve,
    matrix_profile,
    png,
    tiff,
)
from PIL import Image

from lediflow.data.photograph import rgb_pixels
from lediflow.data.pixels import UnusableImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
UPRIGHT = {  # EXIF 2.3, table of Orientation: where row 0 and column 0 of the file are
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
ROWS = [row.tobytes() for row in PIXELS]
ODD_TAGS = (0x0100, 0x010E, 0x011A, 0x013B, 0x02BC, 0x8769, 0x8825, 0x927C, 0xC4A5, 0xFFFF)
ODD_TYPES = (0, 1, 2, 3, 4, 5, 7, 10, 12, 16, 255)
ODD_COUNTS = (0, 1, 5, 2**16, 2**32 - 1)
ODD_VALUES = (0, 30, 2**32 - 1)


def odd_entries(order: str) -> list[bytes]:
    """Each by itself is a fault that a program or a bad card could make."""
    grid = itertools.product(ODD_TAGS, ODD_TYPES, ODD_COUNTS, ODD_VALUES)
    return [struct.pack(f"{order}HHII", *entry) for entry in grid]


def file_of(kind: str, described: bytes, **options) -> bytes:
    buffer = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    prefix = b"Exif\0\0" if kind == "JPEG" else b""
    Image.fromarray(PIXELS).save(buffer, kind, exif=prefix + described, **lossless, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(kind, orientation):
    stored = rgb_pixels(file_of(kind, exif(1)))
    found = rgb_pixels(file_of(kind, exif(orientation)))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](stored))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_invalid_exif_tags_lose_neither_picture_nor_orientation(kind, order):
    stored = file_of(kind, exif(6, bytes(12), order=order))
    expected = rgb_pixels(file_of(kind, exif(6, order=order)))
    assert expected.shape == (6, 4, 3)
    plain = exif(6, bytes(12), order=order)
    for entry in odd_entries(order)[:: 5 if kind == "JPEG" else 11]:
        odd = exif(6, entry, order=order)
        if kind == "PNG":
            content = stored.replace(chunk(b"eXIf", plain), chunk(b"eXIf", odd))
        else:
            content = stored.replace(plain, odd)
        np.testing.assert_array_equal(rgb_pixels(content), expected, err_msg=entry.hex())


@pytest.mark.parametrize("order", "<>")
def test_invalid_tiff_tags_lose_neither_picture_nor_orientation(order):
    tags = {258: [8] * 3, 262: [2], 274: [6]}
    expected = UPRIGHT[6](PIXELS)
    for entry in odd_entries(order)[::5]:
        if struct.unpack_from(f"{order}H", entry)[0] == 0x0100:
            continue  # the width: of the pixels themselves
        content = tiff([PIXELS.tobytes()], (6, 4), tags, order, entry)
        np.testing.assert_array_equal(rgb_pixels(content), expected, err_msg=entry.hex())


@pytest.mark.parametrize(("kind", "value"), [(3, 0), (3, 9), (4, 2**31), (2, 0x36), (7, 6), (11, 6)])
def test_an_invalid_orientation_is_ignored(kind, value):
    entry = struct.pack("<HHII", 0x0112, kind, 1, value)
    described = exif(1).replace(struct.pack("<HHIHH", 0x0112, 3, 1, 1, 0), entry)
    np.testing.assert_array_equal(rgb_pixels(file_of("PNG", described)), PIXELS)


@pytest.mark.parametrize(("kind", "letter"), [(1, "B"), (3, "H"), (4, "I")])
def test_an_orientation_in_any_whole_number_counts(kind, letter):
    entry = struct.pack("<HHI", 0x0112, kind, 1) + struct.pack(f"<{letter}", 6).ljust(4, b"\0")
    described = exif(1).replace(struct.pack("<HHIHH", 0x0112, 3, 1, 1, 0), entry)
    np.testing.assert_array_equal(rgb_pixels(file_of("PNG", described)), UPRIGHT[6](PIXELS))


def test_an_orientation_given_only_in_xmp_is_applied():
    about = b"XML:com.adobe.xmp\0\0\0\0\0<rdf tiff:Orientation='6'/>"
    content = png(ROWS, 6, 8, RGB, chunk(b"iTXt", about))
    np.testing.assert_array_equal(rgb_pixels(content), UPRIGHT[6](PIXELS))


BOMB = zlib.compress(bytes(2**21))
ODD_CHUNKS = {
    "a text whose checksum is wrong": chunk(b"tEXt", b"a\0b", check=0),
    "a text that unpacks to megabytes": chunk(b"zTXt", b"a\0\0" + BOMB),
    "a text of an unknown compression": chunk(b"zTXt", b"a\0\7" + BOMB),
    "an international text without an end": chunk(b"iTXt", b"a\0\1\0"),
    "a profile that unpacks to megabytes": chunk(b"iCCP", b"a\0\0" + BOMB),
    "a profile of an unknown compression": chunk(b"iCCP", b"a\0\7" + BOMB),
    "a profile without anything": chunk(b"iCCP", b""),
    "a profile whose checksum is wrong": chunk(b"iCCP", b"a\0\0" + BOMB, check=0),
    "a gamma that was cut": chunk(b"gAMA", b"\0"),
    "primaries that were cut": chunk(b"cHRM", b"\0"),
    "a resolution that was cut": chunk(b"pHYs", b"\0"),
    "an animation that was cut": chunk(b"acTL", b"\0"),
    "a raw profile that is no hexadecimal": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nxyzz"),
}


@pytest.mark.parametrize("odd", ODD_CHUNKS.values(), ids=ODD_CHUNKS)
def test_invalid_png_chunks_lose_neither_picture_nor_orientation(odd):
    content = png(ROWS, 6, 8, RGB, odd, chunk(b"eXIf", exif(6)))
    np.testing.assert_array_equal(rgb_pixels(content), UPRIGHT[6](PIXELS))


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


ODD_SEGMENTS = {
    "a JFIF head that was cut": segment(0xE0, b"JFIF\0\1"),
    "an Adobe mark that was cut": segment(0xEE, b"Adobe"),
    "an index of pictures that is none": segment(0xE2, b"MPF\0" + bytes(8)),
    "an index of pictures that points nowhere": segment(0xE2, b"MPF\0" + exif(6)),
    "Photoshop's resources, cut": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\1"),
    "a piece of a profile": segment(0xE2, b"ICC_PROFILE\0\2\5abc"),
    "a profile without numbers": segment(0xE2, b"ICC_PROFILE\0"),
    "a comment": segment(0xFE, bytes(range(256))),
    "a second EXIF": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "an EXIF that was cut": segment(0xE1, b"Exif\0\0II*"),
}


@pytest.mark.parametrize("odd", ODD_SEGMENTS.values(), ids=ODD_SEGMENTS)
def test_invalid_jpeg_segments_do_not_lose_the_picture(odd):
    plain = file_of("JPEG", exif(1), quality=100)
    np.testing.assert_array_equal(rgb_pixels(plain[:2] + odd + plain[2:]), rgb_pixels(plain))


def test_a_profile_of_megabytes_is_applied():
    plain = matrix_profile(ADOBE, gamma_curve(ADOBE_GAMMA))
    large = struct.pack(">I", len(plain) + 2**21) + plain[4:] + bytes(2**21)
    found = [
        rgb_pixels(png(ROWS, 6, 8, RGB, chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))))
        for profile in (plain, large)
    ]
    np.testing.assert_array_equal(*found)
    assert (found[0] != PIXELS).any()


def test_damaged_pixels_are_refused_with_any_metadata():
    content = png(ROWS, 6, 8, RGB, ODD_CHUNKS["a text whose checksum is wrong"])
    for cut in range(60, len(content) - 20, 5):
        with pytest.raises(UnusableImageError, match=r"^unreadable: "):
            rgb_pixels(content[:cut])
