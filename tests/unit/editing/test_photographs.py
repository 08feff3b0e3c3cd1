"""Pictures come out upright, in the models' size and colours, or are refused with the reason."""

import numpy as np
import pytest
import torch
from PIL import Image

from lediflow.data.photograph import TURNS
from lediflow.editing.photographs import centred, exact, refuse_inside
from lediflow.errors import UserError

SIZE = 16
UPRIGHT = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
INVERSE = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_in_every_orientation_is_upright(orientation, tmp_path):
    picture = Image.fromarray(UPRIGHT)
    if orientation in TURNS:
        picture = picture.transpose(INVERSE.get(TURNS[orientation], TURNS[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "photo.png", exif=exif)
    for read in (exact, centred):
        pixels = read(str(tmp_path / "photo.png"), "image", SIZE, 3).pixels
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), UPRIGHT)


def test_the_bytes_of_an_exact_picture_are_those_of_the_file(tmp_path):
    grey = UPRIGHT[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(exact(str(tmp_path / "grey.png"), "image", SIZE, 1).pixels[0].numpy(), grey)
    threefold = exact(str(tmp_path / "grey.png"), "image", SIZE, 3).pixels
    assert torch.equal(threefold, torch.from_numpy(grey).expand(3, SIZE, SIZE))


def test_a_larger_photograph_is_cropped_and_scaled_unless_it_must_be_exact(tmp_path):
    Image.fromarray(np.full((64, 42, 3), 90, np.uint8)).save(tmp_path / "large.png")
    picture = centred(str(tmp_path / "large.png"), "image", SIZE, 1)
    assert torch.equal(picture.pixels, torch.full((1, SIZE, SIZE), 90, dtype=torch.uint8))
    assert picture.signal.shape == (1, 1, SIZE, SIZE)
    assert picture.source_size == (42, 64)
    with pytest.raises(UserError, match=r"has 42 x 64 pixels, the models 16 x 16.* give fit=centre"):
        exact(str(tmp_path / "large.png"), "image", SIZE, 1)


def saved(path, array, mode=None):
    Image.fromarray(array, mode).save(path)


@pytest.mark.parametrize(
    ("array", "channels", "words"),
    [(UPRIGHT, 1, "colour picture"),
     (UPRIGHT[..., 0].astype(np.uint16) * 256, 1, "16 bits per channel"),
     (np.dstack([UPRIGHT, UPRIGHT[..., :1]]), 3, "transparent pixels")],
)  # fmt: skip
def test_pictures_whose_pixels_cannot_stay_as_they_are_are_refused(array, channels, words, tmp_path):
    saved(tmp_path / "picture.png", array)
    with pytest.raises(UserError, match=words):
        exact(str(tmp_path / "picture.png"), "image", SIZE, channels)


@pytest.mark.parametrize("read", [exact, centred])
def test_missing_and_damaged_files_are_named(read, tmp_path):
    with pytest.raises(UserError, match=r"image=.*none\.png cannot be read"):
        read(str(tmp_path / "none.png"), "image", SIZE, 3)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="unreadable: not an image"):
        read(str(tmp_path / "text.png"), "image", SIZE, 3)
    saved(tmp_path / "cut.png", UPRIGHT)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:400])
    with pytest.raises(UserError, match="unreadable"):
        read(str(tmp_path / "cut.png"), "image", SIZE, 3)


def test_a_picture_smaller_than_the_models_is_refused(tmp_path):
    saved(tmp_path / "small.png", UPRIGHT[:8])
    with pytest.raises(UserError, match="too small: 16x8"):
        centred(str(tmp_path / "small.png"), "image", SIZE, 3)
    with pytest.raises(UserError, match="has 16 x 8 pixels, the models 16 x 16; give a larger one"):
        exact(str(tmp_path / "small.png"), "image", SIZE, 3)


def test_a_picture_in_the_output_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="choose another output"):
        refuse_inside(str(tmp_path / "out"), [("image", str(tmp_path / "out" / "a.png"))])
    refuse_inside(str(tmp_path / "out"), [("image", str(tmp_path / "a.png"))])
