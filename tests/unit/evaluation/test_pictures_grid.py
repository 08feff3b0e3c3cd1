"""The picture of every setting: where each image and label is found in it."""

import numpy as np
import pytest
import torch

from lediflow.evaluation.pictures import GAP, LABEL_WIDTH, SMALLEST, labelled_grid
from lediflow.flow.noise import SampleNoise
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


def test_row_labels_are_dark_on_white():
    picture = np.asarray(labelled_grid(drawn(3, 32), LABELS))
    column = picture[:, :LABEL_WIDTH]
    for row in range(2):
        band = column[row * (96 + GAP) : (row + 1) * (96 + GAP)]
        assert (band == 255).all(axis=-1).mean() > 0.8
        assert (band < 100).all(axis=-1).any()
    assert (column[:, -1] == 255).all()  # no label is cut off


def test_each_row_needs_its_label():
    with pytest.raises(ValueError, match="zip"):
        labelled_grid(drawn(3, 32), LABELS[:1])
