"""Images by number, from folders and shards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lediflow.errors import UserError
from lediflow.evaluation.images import FolderImages


def drawn(folder, name: str, size: tuple[int, int], value: int = 0):
    folder.mkdir(exist_ok=True)
    Image.new("L", size, value).save(folder / name)


def test_pictures_are_numbered_in_the_order_of_their_names(tmp_path):
    for place, name in enumerate(("b.png", "a.png", "c.jpg")):
        drawn(tmp_path, name, (8, 8), 100 * place)
    images = FolderImages(tmp_path)(range(0, 3))
    assert images.shape == (3, 3, 8, 8)
    expected = torch.tensor([100, 0, 200]) / 127.5 - 1
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), expected, atol=0.01, rtol=0)  # a JPEG among them


def test_a_folders_record_is_that_of_its_pictures(tmp_path):
    for name, value in (("one", 1), ("same", 1), ("other", 2)):
        drawn(tmp_path / name, "a.png", (8, 8), value)
    one, same, other = (FolderImages(tmp_path / name).record for name in ("one", "same", "other"))
    assert one == same != other


def test_pictures_that_are_not_square_are_refused(tmp_path):
    drawn(tmp_path, "a.png", (8, 6))
    with pytest.raises(UserError, match=r"8 x 6.*crop them first"):
        FolderImages(tmp_path)


def test_pictures_of_several_sizes_are_refused_by_name(tmp_path):
    drawn(tmp_path, "a.png", (8, 8))
    drawn(tmp_path, "b.png", (9, 9))
    with pytest.raises(UserError, match=r"b\.png is 9 x 9, a\.png is 8 x 8.*bring all to one size"):
        FolderImages(tmp_path)(range(2))


def test_a_file_that_is_no_picture_is_named(tmp_path):
    drawn(tmp_path, "a.png", (8, 8))
    (tmp_path / "b.png").write_bytes(np.random.default_rng(0).bytes(50))
    with pytest.raises(UserError, match=r"b\.png is not a picture that can be read"):
        FolderImages(tmp_path)(range(2))
