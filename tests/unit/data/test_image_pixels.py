"""The pixels of a file, compared with the arithmetic of its format, for every way to write them."""

import io
import struct

import numpy as np
import pytest
from harness.picture_files import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, chunk, lab_levels, png, tiff
from PIL import Image

from lediflow.data.photograph import decoded_photograph, rgb_pixels
from lediflow.data.pixels import UnusableImageError

WIDE = np.array([0, 1000, 100 * 256, 100 * 257, 65535], np.uint16)
NARROW = WIDE >> 8  # 0, 3, 100, 100, 255
COLOURS = np.array([[1000, 2000, 3000], [1001, 2000, 3000], [65535, 0, 300]], np.uint16)


def big(values) -> bytes:
    return np.asarray(values).astype(">u2").tobytes()


def pixels_of(content: bytes) -> list:
    """RGB pixels of the first row."""
    return rgb_pixels(content)[0].tolist()


def greys(*values: int) -> list:
    return [[int(value)] * 3 for value in values]


def on_white(colour, alpha: float) -> list:
    return [round(alpha * channel + (1 - alpha) * 255) for channel in colour]


def clear(*values: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


COLOUR_MAP = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
PNGS = {
    "16-bit grey": (png([big(WIDE)], 5, 16, GREY), greys(*NARROW)),
    "16-bit grey, one value clear": (
        png([big(WIDE)], 5, 16, GREY, clear(1000)),
        greys(0, 255, 100, 100, 255),
    ),
    "16-bit grey, black clear": (png([big(WIDE)], 5, 16, GREY, clear(0)), greys(255, 3, 100, 100, 255)),
    "16-bit colour": (png([big(COLOURS)], 3, 16, RGB), (COLOURS >> 8).tolist()),
    "16-bit colour, one clear": (
        png([big(COLOURS)], 3, 16, RGB, clear(1000, 2000, 3000)),
        [[255] * 3, *(COLOURS[1:] >> 8).tolist()],
    ),
    "16-bit grey and alpha": (
        png([big([[1000, 0], [1000, 65535], [9 * 257, 51 * 257]])], 3, 16, GREY_ALPHA),
        [*greys(255, 3), on_white([9] * 3, 0.2)],
    ),
    "16-bit colour and alpha": (
        png([big([[257, 514, 771, 102 * 257]])], 1, 16, RGB_ALPHA),
        [on_white([1, 2, 3], 0.4)],
    ),
    "1 bit": (png([b"\x50"], 4, 1, GREY), greys(0, 255, 0, 255)),
    "1 bit, black clear": (png([b"\x50"], 4, 1, GREY, clear(0)), greys(255, 255, 255, 255)),
    "2 bits, one clear": (png([b"\x1b"], 4, 2, GREY, clear(1)), greys(0, 255, 170, 255)),
    "4 bits, one clear": (png([b"\x05\xaf"], 4, 4, GREY, clear(5)), greys(0, 255, 170, 255)),
    "8 bits, one clear": (png([b"\x05\x04"], 2, 8, GREY, clear(5)), greys(255, 4)),
    "colour, one clear": (png([bytes(range(6))], 2, 8, RGB, clear(0, 1, 2)), [[255] * 3, [3, 4, 5]]),
    "palette, one clear": (
        png([b"\0\1\2"], 3, 8, PALETTE, COLOUR_MAP, chunk(b"tRNS", b"\xff\0")),
        [[10, 20, 30], [255] * 3, [70, 80, 90]],
    ),
    "palette, one half clear": (
        png([b"\0\1\2"], 3, 8, PALETTE, COLOUR_MAP, chunk(b"tRNS", b"\x66\xff")),
        [on_white([10, 20, 30], 0.4), [40, 50, 60], [70, 80, 90]],
    ),
}


@pytest.mark.parametrize(("content", "expected"), PNGS.values(), ids=PNGS)
def test_every_depth_and_transparency_of_png_has_its_right_pixels(content, expected):
    # of compositing; a wrong value is far off
    assert np.abs(np.array(pixels_of(content)) - expected).max() <= 1


def short(values, order: str) -> bytes:
    return np.asarray(values).astype(f"{order}u2").tobytes()


BITS, PHOTOMETRIC, PLANAR, EXTRA, FORMAT = 258, 262, 284, 338, 339
TWELVE = bytes([0xFF, 0xF0, 0x80, 0x80])  # 4095, 128, and half a pixel


def tiffs(order: str) -> dict:
    def grey(bits, values, **more):
        tags = {BITS: [bits], PHOTOMETRIC: [1]} | {int(name[1:]): value for name, value in more.items()}
        return tiff([values], (len(values) * 8 // bits, 1), tags, order)

    def colour(tags, *planes):
        return tiff(planes, (3, 1), {PHOTOMETRIC: [2]} | tags, order)

    wide = short(COLOURS, order)
    planes = [short(plane, order) for plane in COLOURS.T]
    return {
        "16-bit grey": (grey(16, short(WIDE, order)), greys(*NARROW)),
        "8-bit grey, white is zero": (grey(8, b"\0\x0a\xff", t262=[0]), greys(255, 245, 0)),
        "1 bit, white is zero": (grey(1, b"\x50", t262=[0]), greys(*[255, 0] * 2, *[255] * 4)),
        "16-bit colour": (colour({BITS: [16] * 3}, wide), (COLOURS >> 8).tolist()),
        "16-bit planes": (colour({BITS: [16] * 3, PLANAR: [2]}, *planes), (COLOURS >> 8).tolist()),
        "8-bit planes": (
            colour({BITS: [8] * 3, PLANAR: [2]}, b"\1\2\3", b"\4\5\6", b"\7\x08\x09"),
            [[1, 4, 7], [2, 5, 8], [3, 6, 9]],
        ),
        "grey with alpha": (
            tiff([b"\x09\x33\x07\xff"], (2, 1), {BITS: [8] * 2, PHOTOMETRIC: [1], EXTRA: [2]}, order),
            [on_white([9] * 3, 0.2), [7] * 3],
        ),
        "grey times its alpha": (
            tiff([b"\x09\x33\x07\xff"], (2, 1), {BITS: [8] * 2, PHOTOMETRIC: [1], EXTRA: [1]}, order),
            greys(9 + 204, 7),
        ),
        "inks": (
            tiff(
                [bytes([0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255])],
                (3, 1),
                {BITS: [8] * 4, PHOTOMETRIC: [5]},
                order,
            ),
            [[255] * 3, [0, 255, 255], [0] * 3],
        ),
        "CIELAB": (
            tiff([bytes([127, 0, 0, 140, 30, 236])], (2, 1), {BITS: [8] * 3, PHOTOMETRIC: [8]}, order),
            [lab_levels((127 / 2.55, 0, 0)), lab_levels((140 / 2.55, 30, -20))],
        ),
    }


LITTLE_ENDIAN_ONLY = {
    "16-bit grey, white is zero": (
        tiff([short(WIDE, "<")], (5, 1), {BITS: [16], PHOTOMETRIC: [0]}),
        greys(*255 - NARROW),
    ),
    "12-bit grey": (
        tiff([TWELVE], (2, 1), {BITS: [12], PHOTOMETRIC: [1]}),
        greys(255, 8),
    ),
}
CASES = [(f"{order}{name}", *case) for order in "<>" for name, case in tiffs(order).items()]
CASES += [(name, *case) for name, case in LITTLE_ENDIAN_ONLY.items()]


@pytest.mark.parametrize(
    ("content", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_every_kind_of_tiff_has_its_right_pixels(content, expected):
    # of compositing and of CIELAB's bytes
    assert np.abs(np.array(pixels_of(content)) - expected).max() <= 1.5


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "bits", "fault"),
    [("i4", 32, "signed"), ("f4", 32, "floating-point"), ("i2", 16, "signed"), ("i1", 8, "signed")],
)
def test_numbers_of_unknown_range_are_refused(order, kind, bits, fault):
    values = np.array([0, 1, 2, 3]).astype(order + kind).tobytes()
    tags = {BITS: [bits], PHOTOMETRIC: [1], FORMAT: [3 if kind == "f4" else 2]}
    with pytest.raises(UnusableImageError, match=f"unreadable: {fault} pixels have no common range"):
        rgb_pixels(tiff([values], (4, 1), tags, order))


def test_unsigned_numbers_of_32_bits_are_refused():
    values = np.array([0, 70000]).astype("<u4").tobytes()
    with pytest.raises(UnusableImageError, match="32-bit pixels have no common range"):
        rgb_pixels(tiff([values], (2, 1), {BITS: [32], PHOTOMETRIC: [1]}))


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_a_picture_in_16_bits_is_the_picture_in_8(kind, factor):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(levels * factor).save(buffer, kind)
    np.testing.assert_array_equal(rgb_pixels(buffer.getvalue())[..., 0], levels)


def test_cmyk_jpegs_are_not_inverted():
    buffer = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 0, 0, 0)).save(buffer, "JPEG")
    assert rgb_pixels(buffer.getvalue()).min() == 255


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_pictures_in_a_file_is_used(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    assert decoded_photograph(buffer.getvalue()).has_more
    assert (rgb_pixels(buffer.getvalue()) == (255, 0, 0)).all()
