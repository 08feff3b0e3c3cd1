import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lediflow.data.sources import list_images, open_source
from lediflow.data.synthetic import (
    SHAPES,
    make_synthetic_images,
    make_synthetic_shards,
    synthetic_picture,
)
from lediflow.errors import UserError

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


MAKE = """
import sys, pathlib
from lediflow.data.synthetic import make_synthetic_shards
make_synthetic_shards(pathlib.Path(sys.argv[1]), 12, 16, 1)
"""


@pytest.mark.processes
@pytest.mark.parametrize("record", ["job.json", "part-000000.json"])
def test_a_set_finished_by_another_process_meanwhile_is_used(tmp_path, monkeypatch, record):
    """The other one clears the records away while this one is writing one."""
    folder, fsync, others = tmp_path / "shards", os.fsync, []

    def overtake(descriptor):
        fsync(descriptor)
        if not others and any(folder.glob(f".parts/.{record}.*")):
            others.append(subprocess.run([sys.executable, "-c", MAKE, folder], check=True))

    monkeypatch.setattr(os, "fsync", overtake)
    make_synthetic_shards(folder, 12, 16, 1)
    assert len(others) == 1
    undisturbed = make_synthetic_shards(tmp_path / "undisturbed", 12, 16, 1).root
    contents = [{path.name: path.read_bytes() for path in root.iterdir()} for root in (folder, undisturbed)]
    assert contents[0] == contents[1]


def test_records_deleted_from_an_unfinished_set_are_noticed(tmp_path, monkeypatch):
    folder, fsync = tmp_path / "shards", os.fsync

    def vanish(descriptor):
        fsync(descriptor)
        if any(folder.glob(".parts/.part-000000.json.*")):
            shutil.rmtree(folder / ".parts")

    monkeypatch.setattr(os, "fsync", vanish)
    with pytest.raises(UserError, match=r"cannot write .*part-000000\.json"):
        make_synthetic_shards(folder, 12, 16, 1)
