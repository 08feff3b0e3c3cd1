"""Numbers and maps of augmentation, against what k-diffusion's `KarrasAugmentationPipeline` made of the same draws.

`augmentation.json` holds twelve calls of its commit 4601bf0 on 48 x 48 pixels with a_prob=0.7: the draws a_0 to a_7,
its nine-number `cond`, and the matrix from the image's pixels to the result's.
"""

import json
from pathlib import Path

import pytest
import torch

from lediflow.data.augmentation import Draws, linear_origin, numbers_of, shift_in_sides

GOLDEN = json.loads(Path(__file__).with_name("augmentation.json").read_text())
SIDE = GOLDEN["side"]


@pytest.fixture(params=GOLDEN["rows"], ids=range(len(GOLDEN["rows"])))
def row(request):
    return request.param


@pytest.fixture
def draws(row):
    return Draws(*torch.tensor(row["draws"], dtype=torch.float64)[:, None])


def test_the_augmentation_input_has_the_numbers_of_the_reference(row, draws):
    expected = torch.tensor([row["numbers"]], dtype=torch.float64)
    torch.testing.assert_close(numbers_of(draws), expected, rtol=0, atol=2e-6)  # float32 there, 6 digits kept


def test_every_pixel_is_moved_like_in_the_reference(row, draws):
    """The origin of the place that the reference sends a point to is that point; flips come last."""
    matrix = torch.tensor(row["matrix"], dtype=torch.float64)
    middle = (SIDE - 1) / 2
    points = torch.tensor([[0, 0], [47, 0], [0, 47], [20, 31]], dtype=torch.float64)
    sent = points @ matrix[:, :2].T + matrix[:, 2] - middle
    unflipped = sent * (1 - 2 * torch.cat((draws.mirrored, draws.inverted)))
    origin = unflipped @ linear_origin(draws)[0].T - SIDE * shift_in_sides(draws)[0] + middle
    torch.testing.assert_close(origin, points, rtol=0, atol=1e-3)  # of a pixel: the matrix has 5 decimals
