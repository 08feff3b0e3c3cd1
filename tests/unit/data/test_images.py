import io

import numpy as np
import pytest
from PIL import Image

from lediflow.data.photograph import (
    PILLOW_MODES,
    Photograph,
    centre_square,
    decoded_photograph,
    picture_bytes,
)
from lediflow.data.pixels import UnusableImageError, opaque_srgb


def file_of(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def square_picture(content: bytes, *, size: int, mode: str) -> Image.Image:
    """What preparing makes of a file."""
    return centre_square(decoded_photograph(content, size), size=size, mode=mode)


KINDS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
TRUNCATED = {
    "JPEG": {},
    "progressive JPEG": {"kind": "JPEG", "progressive": True},
    "PNG": {},
    "WEBP": {},
    "lossless WEBP": {"kind": "WEBP", "lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
}


def noise_image(width: int, height: int, channels: int = 3, low: int = 0, high: int = 256) -> Image.Image:
    pixels = np.random.default_rng(0).integers(low, high, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze())


def test_a_photograph_of_the_requested_size_keeps_every_pixel():
    image = noise_image(24, 24)
    picture = square_picture(file_of(image), size=24, mode="rgb")
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(image))


def lanczos_matrix(side: int, size: int) -> np.ndarray:
    """Rows of Lanczos-3 weights, widened by the reduction, as the textbook has it."""
    reduction = side / size
    distance = (np.arange(side) + 0.5 - (np.arange(size)[:, None] + 0.5) * reduction) / reduction
    weights = np.sinc(distance) * np.sinc(distance / 3) * (abs(distance) < 3)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("width", "height", "left", "top"), [(64, 40, 12, 0), (41, 64, 0, 11), (96, 96, 0, 0)]
)
def test_the_centre_square_is_reduced_with_lanczos_weights(width, height, left, top):
    # far from black and white, so that overshoot is not clipped between the two passes
    image, side = noise_image(width, height, channels=1, low=90, high=160), min(width, height)
    square = np.asarray(image)[top : top + side, left : left + side].astype(float)
    matrix = lanczos_matrix(side, 20)
    expected = matrix @ square @ matrix.T
    picture = square_picture(file_of(image), size=20, mode="grey")
    np.testing.assert_allclose(np.asarray(picture), expected, atol=1.5)  # rounds to bytes twice


@pytest.mark.parametrize(("file_format", "mode"), [("png", "rgb"), ("png", "grey"), ("webp", "rgb")])
def test_lossless_formats_give_back_every_pixel(file_format, mode):
    picture = square_picture(file_of(noise_image(20, 20)), size=16, mode=mode)
    found = Image.open(io.BytesIO(picture_bytes(picture, file_format)))
    assert (found.mode, found.size) == (PILLOW_MODES[mode], (16, 16))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(picture))


def test_the_exif_orientation_is_applied():
    image = noise_image(20, 20)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture = square_picture(file_of(image, exif=exif), size=20, mode="rgb")
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(image)[::-1, ::-1])


def test_transparent_becomes_white():
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert set(square_picture(file_of(clear), size=8, mode="rgb").get_flattened_data()) == {(255, 255, 255)}


def test_sixteen_bits_are_scaled_to_eight_not_clipped():
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    picture = square_picture(file_of(Image.fromarray(levels * 257)), size=16, mode="grey")
    np.testing.assert_array_equal(np.asarray(picture), levels)


def test_floating_point_pixels_are_refused():
    content = file_of(Image.fromarray(np.ones((16, 16), np.float32)), "TIFF")
    with pytest.raises(UnusableImageError, match="no common range"):
        square_picture(content, size=16, mode="grey")


def test_a_small_photograph_is_refused_with_both_sizes():
    with pytest.raises(UnusableImageError, match="too small: 30x10, need 16x16"):
        square_picture(file_of(noise_image(30, 10)), size=16, mode="rgb")


@pytest.mark.parametrize("cut", [0, 20, 300])
def test_a_damaged_file_is_refused_with_the_same_words_each_time(cut):
    content = file_of(noise_image(30, 30))[:cut]
    reasons = set()
    for _ in range(2):
        with pytest.raises(UnusableImageError, match=r"^unreadable: ") as caught:
            square_picture(content, size=16, mode="rgb")
        reasons.add(str(caught.value))
    assert len(reasons) == 1


@pytest.mark.parametrize("name", TRUNCATED)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.99])
def test_a_truncated_file_of_any_format_is_refused(name, share):
    options = {"kind": name} | TRUNCATED[name]
    content = file_of(noise_image(64, 64), **options)
    square_picture(content, size=16, mode="rgb")
    with pytest.raises(UnusableImageError, match=r"^unreadable: "):
        square_picture(content[: int(share * len(content))], size=16, mode="rgb")


def test_damaged_metadata_never_raises():
    random, original = np.random.default_rng(0), [file_of(noise_image(24, 24), kind) for kind in KINDS]
    outcomes = set()
    for number in range(300):
        content = np.frombuffer(original[number % len(KINDS)], np.uint8).copy()
        content[random.integers(0, min(len(content), 200), 8)] = random.integers(0, 256, 8)
        try:
            outcomes.add(square_picture(content.tobytes(), size=16, mode="rgb").size)
        except UnusableImageError:
            outcomes.add("unusable")
    assert outcomes == {(16, 16), "unusable"}


USABLE_MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "LA", "PA", "RGBX", "RGBa", "La"]


@pytest.mark.parametrize("mode", PILLOW_MODES)
@pytest.mark.parametrize("pillow_mode", USABLE_MODES)
def test_every_kind_of_pixels_becomes_a_picture_in_every_mode(pillow_mode, mode):
    image = Image.new(pillow_mode, (20, 20))
    assert centre_square(Photograph(image, 20, 20), size=16, mode=mode).size == (16, 16)


@pytest.mark.parametrize("mode", PILLOW_MODES)
@pytest.mark.parametrize("pillow_mode", ["F", "I"])
def test_pixels_that_cannot_be_converted_are_refused_with_the_reason(pillow_mode, mode):
    image = Image.new(pillow_mode, (20, 20))
    with pytest.raises(UnusableImageError, match=r"^unreadable: "):
        centre_square(Photograph(image, 20, 20), size=16, mode=mode)


@pytest.mark.parametrize("mode", PILLOW_MODES)
@pytest.mark.parametrize("pillow_mode", ["RGB", "RGBA", "P", "LAB", "CMYK"])
def test_working_in_bands_changes_no_pixel(pillow_mode, mode):
    image = noise_image(1500, 1200, channels=4)
    image = (image if pillow_mode == "RGBA" else image.convert("RGB")).convert(pillow_mode)
    whole = opaque_srgb(image).crop((150, 0, 1350, 1200)).convert(PILLOW_MODES[mode])
    picture = centre_square(Photograph(image, 1500, 1200), size=64, mode=mode)
    assert picture.tobytes() == whole.resize((64, 64), Image.Resampling.LANCZOS).tobytes()


@pytest.fixture(scope="module")
def large() -> Image.Image:
    """Smooth, of 18 million pixels, no two rows or columns alike."""
    x, y = np.linspace(0, 1, 4800, dtype=np.float32), np.linspace(0, 1, 3800, dtype=np.float32)[:, None]
    across = np.sin(9 * x)
    waves = np.cos(5 * y) * (across * np.cos(x)) - np.sin(5 * y) * (across * np.sin(x))  # sin 9x cos(5y + x)
    return Image.fromarray((128 + 100 * waves).astype(np.uint8))


@pytest.fixture(scope="module")
def large_on_its_side(large) -> bytes:
    """A JPEG whose orientation turns it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(large, "JPEG", exif=exif, quality=95)


@pytest.mark.parametrize(("size", "decoded"), [(64, 475), (400, 950), (800, 1900), (1000, 3800)])
def test_a_large_jpeg_is_decoded_at_twice_the_requested_side_or_more(large, large_on_its_side, size, decoded):
    photograph = decoded_photograph(large_on_its_side, size)
    assert photograph.image.width == decoded
    assert (photograph.width, photograph.height) == (3800, 4800)
    upright = large.transpose(Image.Transpose.ROTATE_270)
    expected = centre_square(Photograph(upright, 3800, 4800), size=size, mode="grey")
    found = centre_square(photograph, size=size, mode="grey")
    # quantisation at quality 95 is a few levels, and the centre may move by a fraction of a pixel
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), atol=4)


def test_a_large_jpeg_that_is_truncated_is_refused(large):
    content = file_of(large, "JPEG")
    with pytest.raises(UnusableImageError, match=r"^unreadable: .*truncated"):
        square_picture(content[: len(content) // 2], size=64, mode="grey")
