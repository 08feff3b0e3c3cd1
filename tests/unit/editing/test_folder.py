"""An animation has every frame for its time, in its colours."""

from io import BytesIO

import numpy as np
import pytest
from harness.picture_files import gif_durations
from PIL import Image

from lediflow.editing.folder import EditFolder


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_has_every_frame_in_its_colours(tmp_path, channels):
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels), dtype=np.uint8)
    folder = EditFolder(tmp_path, {"seed": 7})
    folder.add_animation("strip.gif", frames, 0.5)
    content = BytesIO(folder.files["strip.gif"])
    assert gif_durations(content) == [500] * 3
    with Image.open(content) as gif:
        assert (gif.info["comment"], gif.info["loop"]) == (b'{"seed": 7}', 0)
        for number, frame in enumerate(frames):
            gif.seek(number)
            shown = np.asarray(gif.convert("RGB"))
            assert np.array_equal(shown, np.broadcast_to(frame, shown.shape))


def test_equal_frames_stay_apart_also_where_their_sum_is_more_than_a_gif_can_say(tmp_path):
    folder = EditFolder(tmp_path, None)
    folder.add_animation("strip.gif", np.zeros((20, 8, 8, 1), dtype=np.uint8), 60)
    assert gif_durations(BytesIO(folder.files["strip.gif"])) == [60_000] * 20
