"""What was painted in the browser becomes a mask of 0 and 255, or a message that says why it cannot."""

import numpy as np
import pytest
from harness.edited import SIZE
from harness.studios import canvas, stroke

from lediflow.errors import UserError
from lediflow.studio.strokes import NothingGivenError, enlargement, painted_mask

FACTOR = enlargement(SIZE)
ROWS, COLUMNS = slice(3 * FACTOR, 5 * FACTOR), slice(2 * FACTOR, 9 * FACTOR)


def over(below, above):
    """Two translucent layers blended, as an editor does where strokes cross."""
    alpha_above, alpha_below = above[..., 3:] / 255.0, below[..., 3:] / 255.0
    alpha = alpha_above + alpha_below * (1 - alpha_above)
    return np.concatenate([above[..., :3], np.rint(255 * alpha).astype(np.uint8)], axis=-1)


def test_crossing_translucent_strokes_give_0_and_255():
    crossed = over(stroke(ROWS, COLUMNS), stroke(COLUMNS, ROWS))
    assert len(np.unique(crossed[..., 3])) == 3  # nothing, one stroke, two
    wanted = np.zeros((SIZE, SIZE), np.uint8)
    wanted[3:5, 2:9] = wanted[2:9, 3:5] = 255
    assert np.array_equal(painted_mask(canvas(crossed), SIZE).levels, wanted)
    apart = painted_mask(canvas(stroke(ROWS, COLUMNS), stroke(COLUMNS, ROWS)), SIZE)
    assert np.array_equal(apart.levels, wanted)


def test_the_faintest_touch_of_a_pixel_repaints_it_and_no_other():
    corner = slice(4 * FACTOR - 1, 4 * FACTOR)
    levels = painted_mask(canvas(stroke(corner, corner, alpha=1)), SIZE).levels
    assert np.argwhere(levels).tolist() == [[3, 3]] and levels[3, 3] == 255


def test_a_blurred_mask_reaches_beyond_what_was_painted():
    hard, soft = (painted_mask(canvas(stroke(ROWS, COLUMNS)), SIZE, blur).levels for blur in (0, 1.5))
    assert (soft > 0).sum() > (hard > 0).sum() and 0 < soft.max() < 255


@pytest.mark.parametrize("side", [SIZE * FACTOR // 2, SIZE * FACTOR + 1, SIZE])
def test_other_sizes_than_those_sent_are_refused(side):
    for value in (canvas(stroke(ROWS, COLUMNS, side=side)), canvas(side=side)):
        with pytest.raises(
            UserError, match=f"{side} x {side} pixels for a picture of 512 x 512.*upload a mask"
        ):
            painted_mask(value, SIZE)


def test_lost_layers_are_noticed():
    value = canvas()
    value["composite"] = value["background"].copy()
    value["composite"][:40, :40] = 255
    with pytest.raises(UserError, match="shows strokes but returned no mask"):
        painted_mask(value, SIZE)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"background": None, "layers": [], "composite": None},
        canvas(),
        canvas(stroke(slice(0), slice(0))),
    ],
)
def test_before_anything_is_painted_there_is_nothing_to_do(value):
    with pytest.raises(NothingGivenError, match=r"upload one first|paint over what"):
        painted_mask(value, SIZE)


def test_a_mask_of_everything_is_refused():
    with pytest.raises(UserError, match="leaves no pixel as it is"):
        painted_mask(canvas(stroke(slice(None), slice(None))), SIZE)
