"""Images by number, from folders and shards."""

from __future__ import annotations

import os
import tarfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lediflow.errors import UserError
from lediflow.evaluation.images import FolderImages, sampling_record
from lediflow.sampling import SamplingConfig


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


def test_the_record_of_a_folder_describes_its_pictures(tmp_path):
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


def test_a_file_that_is_not_a_picture_is_named(tmp_path):
    drawn(tmp_path, "a.png", (8, 8))
    (tmp_path / "b.png").write_bytes(np.random.default_rng(0).bytes(50))
    with pytest.raises(UserError, match=r"b\.png is not a picture that can be read"):
        FolderImages(tmp_path)(range(2))


def test_a_first_file_that_is_not_a_picture_is_reported_with_its_option(tmp_path):
    drawn(tmp_path, "b.png", (8, 8))
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"^reference=.*: a\.png is not a picture that can be read"):
        FolderImages(tmp_path, "reference")


def test_a_picture_in_place_of_a_folder_is_refused_with_the_option_that_names_it(tmp_path):
    drawn(tmp_path, "a.png", (8, 8))
    with pytest.raises(
        UserError, match=rf"^images=.*a\.png is one photograph; give its folder: images={tmp_path}$"
    ):
        FolderImages(tmp_path / "a.png")


def test_grey_pictures_are_known_by_their_channels_not_by_their_mode(tmp_path):
    drawn(tmp_path, "a.png", (8, 8), 70)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "b.png")
    assert FolderImages(tmp_path).is_grey()
    Image.new("RGB", (8, 8), (9, 8, 9)).save(tmp_path / "c.png")
    assert not FolderImages(tmp_path).is_grey()


def test_a_picture_that_cannot_be_opened_is_named(tmp_path):
    drawn(tmp_path, "a.png", (8, 8))
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"b\.png cannot be read \(No such file"):
        FolderImages(tmp_path)


def test_names_that_are_not_utf8_are_read_and_can_be_written_in_messages(tmp_path):
    drawn(tmp_path, "a.png", (8, 8))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"\\udcff\.png is not a picture") as caught:
        FolderImages(tmp_path)(range(2))
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda path: None, r"^images=.*pictures does not exist"),
        (lambda path: path.mkdir(), r"^images=.*: the source holds no images: found nothing"),
    ],
)
def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path, made, message):
    made(tmp_path / "pictures")
    with pytest.raises(UserError, match=message):
        FolderImages(tmp_path / "pictures")


def test_a_folder_of_archives_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    with pytest.raises(UserError, match=r"images=.* holds archives; unpack them"):
        FolderImages(tmp_path)


def test_skipped_files_are_counted_and_named(tmp_path):
    for place in ("a.png", "below/b.tif", ".hidden.png"):
        drawn((tmp_path / place).parent, Path(place).name, (8, 8), 9)
    (tmp_path / "results").mkdir()
    for name in ("notes.txt", "samples.json", "results/results.json"):  # the last two are the toolkit's own
        (tmp_path / name).touch()
    images = FolderImages(tmp_path)
    assert [entry.name for entry in images.entries] == ["a.png", "below/b.tif"]
    assert images.account() == {"images": 2, "passed_over": {"hidden": 1, ".txt": 1}, "first_of_several": 0}
    (note,) = images.notes()
    assert (
        note == f"images={tmp_path}: 2 pictures; skipped 2 files (1 hidden, 1 .txt): .hidden.png, notes.txt"
    )


def test_the_first_picture_of_an_animation_is_used_and_this_is_reported(tmp_path):
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    images = FolderImages(tmp_path)
    assert (images(range(1)) == -1).all()
    assert images.account()["first_of_several"] == 1
    assert images.notes() == [
        f"images={tmp_path}: of files that hold several pictures the first is taken: 1 (a.gif)"
    ]


def test_one_picture_saved_in_many_ways_is_the_same_picture(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    plain, upside_down = Image.fromarray(levels), Image.Exif()
    upside_down[0x0112] = 3
    on_black = Image.merge("LA", [plain, Image.new("L", (8, 8), 255)])
    plain.save(tmp_path / "0.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "1.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "2.tif")
    Image.fromarray(levels[::-1, ::-1]).save(tmp_path / "3.png", exif=upside_down)
    on_black.save(tmp_path / "4.png")
    plain.convert("RGB").save(tmp_path / "5.webp", lossless=True)
    images = FolderImages(tmp_path)(range(6))
    torch.testing.assert_close(images, images[:1].expand_as(images), rtol=0, atol=0)


def test_transparent_pictures_are_composited_on_white_like_in_prepare(tmp_path):
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.save(tmp_path / "a.png")
    assert (FolderImages(tmp_path)(range(1)) == 1).all()


def test_a_precision_other_than_float32_is_part_of_what_images_are():
    config = SamplingConfig(seed=3)
    single, half = (
        sampling_record(SimpleNamespace(runtime=SimpleNamespace(precision=precision)), config)
        for precision in ("float32", "bfloat16")
    )
    assert single == asdict(config)  # as in records from before it was an option
    assert half == single | {"precision": "bfloat16"}
