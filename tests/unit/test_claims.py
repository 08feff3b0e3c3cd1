"""A command's folder is empty or its own."""

import json

import pytest

from lediflow.claims import CLAIM, claim_folder, named, visible_names
from lediflow.errors import UserError


def claim(folder, command="lediflow.evaluate", is_ours=lambda folder: False):
    claim_folder(folder, "output", command, is_ours)


def test_an_empty_folder_is_marked_before_anything_is_in_it_and_stays_its_commands(tmp_path):
    folder = tmp_path / "a/b"
    claim(folder)
    assert visible_names(folder) == []
    (folder / "half.txt").touch()  # what a killed command left
    claim(folder)


def test_hidden_files_do_not_make_a_folder_foreign(tmp_path):
    (tmp_path / ".DS_Store").touch()
    claim(tmp_path)


@pytest.mark.parametrize("mark", [None, {"command": "lediflow.checkpoint export"}, "torn"])
def test_a_folder_with_files_that_are_not_its_own_is_refused_and_named(tmp_path, mark):
    for name in ("c.png", "a.png", "d.png", "b.png"):
        (tmp_path / name).touch()
    if mark is not None:
        (tmp_path / CLAIM).write_text(json.dumps(mark)[:-1] if mark == "torn" else json.dumps(mark))
    with pytest.raises(UserError, match=r"output=.* is not empty \(found a.png, b.png, c.png and 1 more\)"):
        claim(tmp_path)


def test_a_folder_that_an_earlier_release_wrote_is_recognised(tmp_path):
    (tmp_path / "results.json").touch()
    claim(tmp_path, is_ours=lambda folder: (folder / "results.json").exists())


def test_a_file_in_place_of_the_folder_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file"):
        claim(tmp_path / "file")


def test_few_names_are_named_in_full():
    assert (named(["a"]), named(["a", "b", "c"])) == ("a", "a, b, c")
