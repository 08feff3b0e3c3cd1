"""How visible a border is, on pictures whose differences are known."""

import pytest
import torch

from lediflow.editing.seam import near_border, seams

SIZE = 24
AMOUNT = torch.zeros(1, 1, SIZE, SIZE)
AMOUNT[..., :, 12:] = 1
RAMP = (3 * torch.arange(SIZE)).expand(1, 1, SIZE, SIZE).to(torch.uint8)


def test_a_jump_on_a_ramp():
    """Steps of 3 along rows and 0 along columns: beside the border, 4 pixels on each side, 6 steps of 3 in a row."""
    jump = torch.where(AMOUNT > 0, RAMP + 9, RAMP).to(torch.uint8)
    pairs_in_rows, pairs_in_columns = 6 * SIZE, 8 * (SIZE - 1)
    beside = 3 * pairs_in_rows / (pairs_in_rows + pairs_in_columns)
    found = seams(torch.cat([RAMP, jump]), AMOUNT)
    assert found == pytest.approx([3 / beside, 12 / beside])


def test_noise_has_no_seam_and_a_flat_picture_no_measure():
    noise = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8, generator=torch.manual_seed(0))
    amount = torch.zeros(1, 1, 96, 96)
    amount[..., 20:70, 30:80] = 1
    # 600 differences, each with a deviation of 0.7
    assert seams(noise, amount)[0] == pytest.approx(1, abs=0.1)
    assert seams(torch.full((1, 1, SIZE, SIZE), 7, dtype=torch.uint8), AMOUNT) == [None]


def test_pixels_near_the_border_are_within_reach_of_the_other_side():
    near = near_border(AMOUNT[0, 0] > 0)
    assert near[0].nonzero().flatten().tolist() == list(range(8, 16))
