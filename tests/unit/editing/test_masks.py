"""White is repainted, however a file says so; shapes cover the pixels that they name."""

import logging

import numpy as np
import pytest
from PIL import Image

from lediflow.editing.masks import Mask, centred_mask, mask_of
from lediflow.errors import UserError

SIZE = 16
INSIDE = np.zeros((SIZE, SIZE), dtype=bool)
INSIDE[3:9, 4:12] = True
WHITE = np.where(INSIDE, 255, 0).astype(np.uint8)


def palette():
    picture = Image.fromarray(np.where(INSIDE, 0, 1).astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    return picture


def with_alpha(colour, alpha):
    return Image.fromarray(
        np.dstack([np.broadcast_to(colour, (SIZE, SIZE, 3)), alpha]).astype(np.uint8), "RGBA"
    )


GREY3 = np.repeat(WHITE[..., None], 3, axis=2)
PHOTOGRAPH = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3))
KINDS = {
    "L": lambda: Image.fromarray(WHITE),
    "1 bit": lambda: Image.fromarray(WHITE).convert("1"),
    "palette, white first": palette,
    "RGB": lambda: Image.fromarray(GREY3),
    "16 bits": lambda: Image.fromarray(WHITE.astype(np.uint16) * 257),
    "opaque RGBA": lambda: with_alpha(GREY3, np.full((SIZE, SIZE), 255)),
    "white everywhere, alpha is the mask": lambda: with_alpha((255, 255, 255), WHITE),
    "white where transparent, black elsewhere": lambda: with_alpha(GREY3, 255 - WHITE),
    "a photograph with a hole": lambda: with_alpha(PHOTOGRAPH, 255 - WHITE),
    "grey with alpha": lambda: Image.merge("LA", [Image.new("L", (SIZE, SIZE), 255), Image.fromarray(WHITE)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_mask_in_every_mode_is_the_same(kind, tmp_path):
    KINDS[kind]().save(tmp_path / "mask.png")
    mask = mask_of((SIZE, SIZE), file=str(tmp_path / "mask.png"))
    assert np.array_equal(mask.levels, WHITE)


def test_a_jpeg_becomes_black_or_white_with_a_warning(tmp_path, caplog):
    Image.fromarray(WHITE).save(tmp_path / "mask.jpg", quality=60)
    with caplog.at_level(logging.WARNING):
        mask = mask_of((SIZE, SIZE), file=str(tmp_path / "mask.jpg"))
    assert np.array_equal(mask.levels, WHITE)
    assert "save masks as PNG" in caplog.text


def test_grey_levels_repaint_in_part(tmp_path):
    Image.fromarray(WHITE // 3).save(tmp_path / "mask.png")
    assert mask_of((SIZE, SIZE), file=str(tmp_path / "mask.png")).amount.max() == pytest.approx(1 / 3)


def test_a_rectangle_ends_before_its_right_and_bottom():
    assert np.array_equal(mask_of((SIZE, SIZE), rectangle=[4, 3, 12, 9]).is_repainted, INSIDE)


def test_a_polygon_holds_its_corners_and_inside():
    mask = mask_of((SIZE, SIZE), polygon=[4, 3, 11, 3, 11, 8, 4, 8])
    assert np.array_equal(mask.is_repainted, INSIDE)


def test_a_line_of_one_pixel_is_repainted_whole(tmp_path):
    line = np.zeros((SIZE, SIZE), dtype=np.uint8)
    line[7] = 255
    Image.fromarray(line).save(tmp_path / "line.png")
    assert np.array_equal(mask_of((SIZE, SIZE), file=str(tmp_path / "line.png")).levels, line)


@pytest.mark.parametrize("width", [16, 37, 160])
def test_a_line_of_one_pixel_stays_in_the_scaled_central_square(width):
    for row in range(0, width, 7):
        mask = mask_of((width, width + 9), rectangle=[0, 4 + row, width, 5 + row], side=SIZE)
        touched = mask.is_repainted.any(axis=1).nonzero()[0]
        assert mask.is_repainted[touched].all()
        low, high = row * SIZE / width, (row + 1) * SIZE / width
        assert touched[0] == int(low) and touched[-1] == np.ceil(high - 1e-9) - 1


def test_a_scaled_mask_keeps_grey_levels_and_ends_of_the_longer_side_are_cut():
    levels = np.zeros((32, 64), dtype=np.uint8)
    levels[:, :15], levels[8:16, 32:40] = 255, 100
    scaled = centred_mask(Mask(levels, "painted"), SIZE)
    expected = np.zeros((SIZE, SIZE), dtype=np.uint8)
    expected[4:8, 8:12] = 100
    assert np.array_equal(scaled.levels, expected)
    assert scaled.origin == "painted, the central square of 64 x 32 pixels"


def test_a_blurred_mask_is_soft_and_keeps_what_is_far():
    mask = mask_of((SIZE, SIZE), rectangle=[0, 0, 4, 4], blur=1.0)
    assert len(np.unique(mask.levels)) > 2
    assert mask.levels[0, 0] > 200
    assert not mask.is_repainted[10:, 10:].any()


def save(tmp_path, array, name="mask.png"):
    Image.fromarray(array).save(tmp_path / name)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("given", "words"),
    [(lambda path: {"file": save(path, np.zeros((SIZE, SIZE), np.uint8))}, r"mask\.png repaints nothing"),
     (lambda path: {"file": save(path, np.full((SIZE, SIZE), 255, np.uint8))}, r"mask\.png leaves no pixel"),
     (lambda path: {"file": save(path, WHITE // 255)}, "no level above 1 of 255"),
     (lambda path: {"rectangle": [0, 0, SIZE, SIZE]}, r"rectangle=.* leaves no pixel"),
     (lambda path: {"rectangle": [3, 3, 4, 4], "blur": 900}, "or less blur"),
     (lambda path: {"file": save(path, np.zeros((SIZE, 8), np.uint8))}, "8 x 16 pixels, the image 16 x 16"),
     (lambda path: {"file": str(path / "none.png")}, "cannot be read"),
     (lambda path: {"rectangle": [0, 0, 17, 4]}, "beyond the image"),
     (lambda path: {"rectangle": [4, 0, 4, 4]}, "has no pixels"),
     (lambda path: {"polygon": [40, 40, 50, 40, 50, 50]}, "lies outside the image")],
)  # fmt: skip
def test_unfit_masks_are_refused(given, words, tmp_path):
    with pytest.raises(UserError, match=words):
        mask_of((SIZE, SIZE), **given(tmp_path))


def test_a_damaged_file_is_refused(tmp_path):
    path = save(tmp_path, WHITE)
    (tmp_path / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes()[:50])
    with pytest.raises(UserError, match="best as PNG"):
        mask_of((SIZE, SIZE), file=path)
