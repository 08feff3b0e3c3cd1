import numpy as np
import pytest

from lediflow.data.sources import list_images, open_source
from lediflow.data.synthetic import (
    SHAPES,
    make_synthetic_images,
    make_synthetic_shards,
    synthetic_picture,
)

AREAS = {  # of the shape of half-width r, a unit of length being the picture's side
    "disc": lambda r: np.pi * r**2,
    "square": lambda r: 4 * r**2,
    "ring": lambda r: np.pi * ((1.25 * r) ** 2 - (0.75 * r) ** 2),
    "bar": lambda r: 2 / 3 * r,  # a stripe across the whole picture
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_covers_its_area(shape):
    pixels = (np.arange(1000) + 0.5) / 1000 - 0.5
    u, v = np.meshgrid(pixels, pixels)
    covered = (SHAPES[shape](u, v, 0.25) > 0).mean()
    assert covered == pytest.approx(AREAS[shape](0.25), abs=2e-3)  # border pixels


def test_a_picture_is_a_function_of_its_arguments():
    first, again = (synthetic_picture("disc", 3, size=16, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != synthetic_picture("disc", 4, size=16, seed=5)).any()
    assert (first != synthetic_picture("disc", 3, size=16, seed=6)).any()


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_classes_are_folders_of_equal_size(tmp_path, classes):
    make_synthetic_images(tmp_path, 8, size=8, classes=classes)
    listing = list_images(open_source(tmp_path).ready(tmp_path))
    assert len(listing.images) == 8
    assert listing.classes == (list(SHAPES)[:classes] or None)


@pytest.mark.parametrize("channels", [1, 3])
def test_drawn_shards_are_made_once(tmp_path, channels):
    first = make_synthetic_shards(tmp_path, 10, 8, channels, seed=4)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert (len(first), first.contents.shape) == (10, [channels, 8, 8])
    assert make_synthetic_shards(tmp_path, 10, 8, channels, seed=4).fingerprint == first.fingerprint
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
