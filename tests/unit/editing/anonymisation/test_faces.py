"""Masks become faces with squares; what is hidden reaches nothing that the models know; other bytes stay."""

import numpy as np
import pytest
import torch

from lediflow.editing.anonymisation.faces import (
    Face,
    Square,
    face_of_box,
    faces_of_mask,
    pasted,
    seen,
    seen_without,
)

GENERATOR = np.random.default_rng(0)


def photograph(height=40, width=60):
    return GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels(*boxes, height=40, width=60):
    found = np.zeros((height, width), dtype=np.uint8)
    for left, top, right, bottom in boxes:
        found[top:bottom, left:right] = 255
    return found


def test_each_region_is_a_face_from_left_to_right():
    faces = faces_of_mask(levels((40, 2, 48, 10), (3, 20, 13, 32)), size=16, framing=1.5)
    assert [face.square for face in faces] == [Square(0, 17, 18), Square(38, 0, 12)]
    assert [int((face.levels > 0).sum()) for face in faces] == [120, 64]
    assert not faces_of_mask(levels(), 16, 1.5)


def test_a_picture_of_the_models_size_is_seen_whole():
    mask = levels((2, 2, 5, 5), height=16, width=16)
    assert faces_of_mask(mask, 16, 1.5)[0].square == Square(0, 0, 16)


@pytest.mark.parametrize("framing", [1.0, 1.3, 4.0])
def test_a_square_holds_its_whole_face(framing):
    for _ in range(200):
        x, y = (np.sort(GENERATOR.choice(length + 1, 2, replace=False)) for length in (60, 40))
        mask = levels((x[0], y[0], x[1], y[1]))
        (face,) = faces_of_mask(mask, 16, framing)
        left, top, side, _ = face.square
        assert left <= x[0] and top <= y[0] and x[1] <= left + side and y[1] <= top + side
        assert side > 40 or (top >= 0 and top + side <= 40)


@pytest.mark.parametrize(
    "square", [Square(10, 5, 16), Square(3, 2, 37), Square(20, 20, 7), Square(-9, -4, 70)]
)
def test_models_know_nothing_of_hidden_pixels(square):
    mask = levels((12, 8, 25, 23))
    one = photograph()
    two = np.where(mask[..., None] > 0, photograph(), one)
    (known, amount), (other, same) = (seen_without(pixels, mask, square, 16) for pixels in (one, two))
    assert torch.equal(known, other) and torch.equal(amount, same)
    assert not torch.equal(seen(one, square, 16), seen(two, square, 16))
    assert set(amount.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "square", [Square(12, 12, 16), Square(3, 2, 37), Square(20, 20, 7), Square(-9, -4, 70)]
)
def test_what_is_pasted_was_made_and_the_rest_keeps_its_bytes(square):
    """New pixels are white where M is 1 and black elsewhere: nothing of the black may come back."""
    pixels, mask = photograph(), levels((21, 21, 25, 26))
    _, amount = seen_without(pixels, mask, square, 16)
    made = (255 * amount[0].expand(3, -1, -1)).to(torch.uint8)
    result = pasted(pixels, Face(mask, square), made)
    assert np.array_equal(result[mask == 0], pixels[mask == 0])
    # Lanczos mixes over the border of M when it scales back: a border pixel may be grey, its inside may not
    assert (result[22:25, 22:24] > 200).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_square_is_seen_upright_and_pasted_back(turns):
    pixels, mask = photograph(), levels((20, 10, 34, 24))
    square = Square(18, 8, 18, turns)
    there = seen(pixels, square, 18)
    upright = np.rot90(pixels[8:26, 18:36], turns).transpose(2, 0, 1)
    assert np.array_equal(there.numpy(), upright)
    assert np.array_equal(pasted(pixels, Face(mask, square), there), pixels)


def test_an_ellipse_replaces_a_box_and_its_square_holds_it():
    for box in ((10.2, 8.0, 30.0, 33.5), (-8.0, 5.0, 14.0, 30.0), (40.0, 20.0, 70.0, 50.0)):
        face = face_of_box(box, 0, (40, 60), 16, framing=1.1, margin=1.2)
        left, top, right, bottom = box
        centre = round((top + bottom) / 2), round(min(max((left + right) / 2, 0), 59))
        assert face.levels[min(centre[0], 39), centre[1]] == 255
        assert face.is_cut == (left < 0 or bottom > 40)
        rows, columns = np.nonzero(face.levels)
        square = face.square
        assert square.left <= columns.min() and columns.max() < square.left + square.side
        assert square.top <= rows.min() and rows.max() < square.top + square.side
    assert face_of_box((80.0, 5.0, 90.0, 15.0), 0, (40, 60), 16, 1.1, 1.2) is None


def test_levels_between_mix():
    pixels, mask = np.full((16, 16, 1), 100, dtype=np.uint8), np.full((16, 16), 51, dtype=np.uint8)
    made = torch.full((1, 16, 16), 200, dtype=torch.uint8)
    assert (pasted(pixels, Face(mask, Square(0, 0, 16)), made) == 120).all()


def test_a_square_without_any_known_pixel_is_black():
    known, amount = seen_without(photograph(), levels((0, 0, 60, 40)), Square(5, 5, 20), 16)
    assert amount.all() and not known.any()
