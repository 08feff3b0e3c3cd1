"""Labelled grids: where each image and label is found; sigma in colours."""

import numpy as np
import pytest
import torch

from lediflow.flow.noise import SampleNoise
from lediflow.sampling.grids import (
    GAP,
    HEAD_HEIGHT,
    LABEL_WIDTH,
    SIGMA_LIMITS,
    SMALLEST,
    labelled_grid,
    sigma_colours,
)
from lediflow.sampling.pictures import picture_arrays

LABELS = ["midpoint 2", "euler 1, temperature 0.8"]


def drawn(channels: int, side: int, columns: int = 3) -> list[torch.Tensor]:
    """Two rows of noise images."""
    shape = (channels, side, side)
    return [SampleNoise(seed).normal(torch.arange(columns), "image", shape).clamp(-1, 1) for seed in (1, 2)]


def cell(picture: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """`side` pixels of the picture, enlarged or not."""
    top, left = row * (side + GAP), LABEL_WIDTH + column * (side + GAP)
    return picture[top : top + side, left : left + side]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "factor"), [(32, 3), (40, 3), (96, 1), (128, 1)])
def test_every_image_is_in_its_cell_enlarged_by_a_whole_factor(channels, side, factor):
    rows = drawn(channels, side)
    picture = np.asarray(labelled_grid(rows, LABELS))
    assert side * factor >= SMALLEST
    for row, images in enumerate(rows):
        for column, expected in enumerate(picture_arrays(images)):
            found = cell(picture, row, column, side * factor)
            enlarged = expected.repeat(factor, axis=0).repeat(factor, axis=1)
            assert (found == enlarged).all()  # a grey image has the same byte three times


def test_the_picture_is_as_large_as_its_cells_and_labels():
    picture = labelled_grid(drawn(3, 32), LABELS)
    assert picture.size == (LABEL_WIDTH + 3 * (96 + GAP), 2 * (96 + GAP))


def test_a_longer_label_makes_room_for_itself():
    plain, longer = (
        labelled_grid(drawn(3, 32), ["a", text]) for text in ("b", "widened by 0.47 after scaling by 2.5")
    )
    assert longer.width > plain.width
    first_image = longer.width - 3 * (96 + GAP)
    assert (np.asarray(longer)[:, first_image - 1] == 255).all()  # the label ends before


def test_row_labels_are_dark_on_white():
    picture = np.asarray(labelled_grid(drawn(3, 32), LABELS))
    column = picture[:, :LABEL_WIDTH]
    for row in range(2):
        band = column[row * (96 + GAP) : (row + 1) * (96 + GAP)]
        assert (band == 255).all(axis=-1).mean() > 0.8
        assert (band < 100).all(axis=-1).any()
    assert (column[:, -1] == 255).all()  # no label is cut off


def test_column_labels_are_above_their_columns():
    rows = drawn(3, 32)
    plain, headed = (np.asarray(labelled_grid(rows, LABELS, columns)) for columns in ([], ["a", "", "b"]))
    assert np.array_equal(headed[HEAD_HEIGHT:], plain)
    head = headed[:HEAD_HEIGHT, LABEL_WIDTH:].reshape(HEAD_HEIGHT, 3, 96 + GAP, 3)
    assert [(head[:, column] < 100).any() for column in range(3)] == [True, False, True]


def test_each_row_needs_its_label():
    with pytest.raises(ValueError, match="zip"):
        labelled_grid(drawn(3, 32), LABELS[:1])


def test_bytes_are_shown_as_they_are_and_small_rows_at_the_size_of_the_others():
    small = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    picture = np.asarray(labelled_grid([drawn(3, 96)[0], small], LABELS))
    for column, expected in enumerate(small):
        assert (cell(picture, 1, column, 96) == expected.repeat(3, axis=0).repeat(3, axis=1)).all()


def test_sigma_is_brighter_where_it_is_larger_and_never_leaves_the_scale():
    low, high = SIGMA_LIMITS
    sigma = np.geomspace(low / 2, 2 * high, 200)[None, None]
    brightness = sigma_colours(sigma).astype(float).sum(axis=-1)[0, 0]
    assert (np.diff(brightness) >= 0).all()
    assert sigma_colours(np.array([[[low / 9, high * 9]]])).tolist() == [[[[0, 0, 3], [251, 252, 191]]]]


def test_sigmas_colours_are_those_of_the_report():
    from lediflow.report.figure import heat

    sigma = np.geomspace(*SIGMA_LIMITS, 64)[None]
    far = np.abs(sigma_colours(sigma[None])[0].astype(int) - heat(sigma, *SIGMA_LIMITS).astype(int))
    assert far.max() <= 10  # nine colours and straight lines between them, instead of 256 colours
