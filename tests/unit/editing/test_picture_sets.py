"""Sets of pictures: the same halves whatever the files are called, nothing in both, damaged files listed."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lediflow.editing.picture_sets import near_duplicates, read_set, refuse_overlap
from lediflow.errors import UserError

SIZE = 16


def save_pictures(folder, count, seed, channels=3):
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        array = generator.integers(0, 256, (SIZE, SIZE, channels), dtype=np.uint8)
        Image.fromarray(array.squeeze()).save(folder / f"{number}.png")
    return folder


def read(folder, option="with", channels=3):
    return read_set(str(folder), option, SIZE, channels)


def test_names_and_folders_leave_the_halves_as_they_are(tmp_path):
    folder = save_pictures(tmp_path / "a", 9, 0)
    one = read(folder)
    other = tmp_path / "b" / "below"
    other.mkdir(parents=True)
    for place, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        shutil.copy(path, other / f"写真 {place}.png")
    again = read(tmp_path / "b")
    assert again.hashes == one.hashes == sorted(one.hashes)
    assert (one.pixels == again.pixels).all()
    assert (one.fitted, one.record()["tested"]) == (5, 4)
    assert again.record() == one.record()
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    assert read(archive).hashes == one.hashes


def test_a_picture_is_the_same_in_another_format_and_counts_once(tmp_path):
    folder = save_pictures(tmp_path, 8, 0)
    Image.open(folder / "0.png").save(folder / "copy.bmp")
    found = read(folder)
    assert (len(found.hashes), found.repeated) == (8, 1)


def test_a_further_picture_moves_at_most_one_other_to_the_other_half(tmp_path):
    folder = save_pictures(tmp_path, 12, 0)
    before = read(folder)
    save_pictures(folder / "more", 1, 1)
    after = read(folder)
    halves = [set(one.hashes[: one.fitted]) for one in (before, after)]
    assert len((halves[0] ^ halves[1]) & set(before.hashes)) <= 1


def test_damaged_files_are_listed_and_passed_over(tmp_path):
    folder = save_pictures(tmp_path, 8, 0)
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:300])
    (folder / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("no picture, and not called one")
    Image.new("RGB", (4, 4)).save(folder / "small.png")
    found = read(folder)
    assert {one["file"] for one in found.unusable} == {"cut.png", "text.jpg", "small.png"}
    assert found.record()["unusable"] == 3 and "cut" not in str(found.record())


def test_too_few_pictures_are_refused_with_what_was_found(tmp_path):
    folder = save_pictures(tmp_path / "few", 7, 0)
    (folder / "text.png").write_text("no picture")
    with pytest.raises(
        UserError, match=r"with=.*few has 7 different usable pictures .*text\.png is unreadable.*give 8"
    ):
        read(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^without=.*empty"):
        read(tmp_path / "empty", "without")
    with pytest.raises(UserError, match=r"^with=.*none does not exist"):
        read(tmp_path / "none")


def test_pictures_in_both_sets_are_counted_and_refused(tmp_path):
    having, lacking = (save_pictures(tmp_path / name, 8, seed) for seed, name in enumerate(("a", "b")))
    refuse_overlap(read(having), read(lacking, "without"))
    for number in range(5):
        shutil.copy(having / f"{number}.png", lacking / f"other{number}.png")
    with pytest.raises(UserError, match=r"with and without have 5 pictures in common \(.*other.*\.\.\.\)"):
        refuse_overlap(read(having), read(lacking, "without"))


def test_near_identical_pictures_in_both_halves_are_counted(tmp_path):
    having, lacking = (save_pictures(tmp_path / name, 8, seed) for seed, name in enumerate(("a", "b")))
    one, two = read(having), read(lacking, "without")
    assert near_duplicates(one, two) == 0
    tested = one.pixels.clone()
    tested[one.fitted] = two.pixels[0]
    tested[one.fitted, :, 0, 0] ^= 1
    assert near_duplicates(one._replace(pixels=tested), two) == 1


def test_grey_models_get_grey_pictures(tmp_path):
    assert read(save_pictures(tmp_path, 8, 0), channels=1).pixels.shape == (8, 1, SIZE, SIZE)
