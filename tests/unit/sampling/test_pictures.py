"""Images as files and back."""

import numpy as np
import pytest
import torch
from PIL import Image

from lediflow.errors import UserError
from lediflow.sampling.pictures import picture_files, save_pictures


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_pictures_are_read_back_within_half_a_grey_level(channels, tmp_path):
    images = torch.rand(3, channels, 4, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_pictures(images, tmp_path)
    levels = np.stack(
        [np.asarray(Image.open(path)).reshape(4, 5, channels) for path in picture_files(tmp_path)]
    )
    expected = (images.numpy().transpose(0, 2, 3, 1) + 1) * 127.5
    np.testing.assert_allclose(levels, expected, rtol=0, atol=0.501)  # rounding, and float32's own


def test_black_and_white_are_the_ends_of_the_range(tmp_path):
    save_pictures(torch.stack([torch.full((1, 2, 2), -1.0), torch.full((1, 2, 2), 1.0)]), tmp_path)
    assert [int(np.asarray(Image.open(path)).max()) for path in picture_files(tmp_path)] == [0, 255]


def test_files_are_named_by_the_numbers_of_their_images(tmp_path):
    save_pictures(torch.zeros(2, 1, 2, 2), tmp_path, numbers=[98, 99])
    assert [path.name for path in picture_files(tmp_path)] == ["000098.png", "000099.png"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="no pictures in"):
        picture_files(tmp_path)


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file"):
        save_pictures(torch.zeros(1, 1, 2, 2), tmp_path / "file")
