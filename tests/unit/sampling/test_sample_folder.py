"""A folder of samples agrees with its record at any moment, and foreign files are not changed."""

import json
import re

import pytest
import torch
from PIL import Image

from lediflow.errors import UserError
from lediflow.sampling.folder import JOURNAL, RECORD, SampleFolder, check_recorded
from lediflow.sampling.pictures import picture_name

SETTINGS = {"seed": 0, "temperature": 1.0, "weights": {"flow": "abc"}}
OTHER = SETTINGS | {"seed": 1}


def image(number, settings):
    """Picture `number` of some settings: one grey level."""
    level = (number + 100 * settings["seed"]) / 127.5 - 1
    return torch.full((1, 2, 2), level)


def draw(root, settings=SETTINGS, count=4, stop_after=None):
    """Draw pictures in batches of one; returns the numbers that were drawn."""
    drawn = []
    with SampleFolder(root).drawing(settings, {"run": "/runs/flow"}, count) as drawing:
        for number in drawing.missing:
            if stop_after is not None and len(drawn) == stop_after:
                raise KeyboardInterrupt
            drawing.add([number], image(number, settings)[None], nfe=2)
            drawn.append(number)
    return drawn


def interrupted(root, settings=SETTINGS, count=4, stop_after=2):
    with pytest.raises(KeyboardInterrupt):
        draw(root, settings, count, stop_after)


def levels(root):
    """Grey level by file name."""
    return {path.name: Image.open(path).getpixel((0, 0)) for path in sorted(root.glob("*.png"))}


def test_the_pictures_of_a_finished_folder_of_samples_are_measured(tmp_path):
    assert draw(tmp_path) == [0, 1, 2, 3]
    folder = SampleFolder(tmp_path)
    assert folder.has_all(SETTINGS, 4) and not folder.has_all(SETTINGS, 5) and not folder.has_all(OTHER, 4)
    check_recorded(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*map(picture_name, range(4)), RECORD}


def test_an_interrupted_command_continues_with_what_is_missing(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(UserError, match="is unfinished: 2 of the 4 pictures"):
        check_recorded(tmp_path)
    assert draw(tmp_path) == [2, 3]
    assert levels(tmp_path) == {picture_name(number): number for number in range(4)}


@pytest.mark.parametrize("then", [2, 6], ids=["fewer", "more"])
def test_another_count_keeps_the_pictures_that_it_shares(tmp_path, then):
    interrupted(tmp_path, count=5, stop_after=3)
    assert draw(tmp_path, count=then) == list(range(3, then))
    assert levels(tmp_path) == {picture_name(number): number for number in range(then)}
    assert SampleFolder(tmp_path).has_all(SETTINGS, then)


def test_pictures_of_other_settings_do_not_stay(tmp_path):
    interrupted(tmp_path, count=5, stop_after=4)
    assert draw(tmp_path, OTHER, count=2) == [0, 1]
    assert levels(tmp_path) == {picture_name(0): 100, picture_name(1): 101}


def test_pictures_that_will_be_removed_are_announced_with_the_reason(tmp_path):
    folder = SampleFolder(tmp_path)
    assert folder.replaced(SETTINGS, 5) == ""
    draw(tmp_path, count=5)
    assert folder.replaced(SETTINGS, 8) == ""
    assert "removing 3 images beyond count=2" in folder.replaced(SETTINGS, 2)
    assert re.search(r"removing 5 images of other settings .*\(.* then, .* now\)", folder.replaced(OTHER, 5))


def test_an_interrupted_removal_leaves_a_record_that_covers_what_is_there(tmp_path, monkeypatch):
    draw(tmp_path, count=5)
    removed = []

    def stopping_unlink(path, missing_ok=False):
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(path)
        path.rename(path.with_suffix(".removed"))

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.unlink", stopping_unlink)
        interrupted(tmp_path, OTHER)
    with pytest.raises(UserError, match="is unfinished: 3 of the 5"):
        check_recorded(tmp_path)
    assert draw(tmp_path, OTHER, count=2) == [0, 1]
    assert levels(tmp_path) == {picture_name(0): 100, picture_name(1): 101}


@pytest.mark.parametrize("damage", ["removed", "cut", "replaced"])
def test_a_modified_picture_is_generated_again(tmp_path, damage):
    draw(tmp_path)
    path = tmp_path / picture_name(1)
    match damage:
        case "removed":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:20])
        case "replaced":
            path.write_bytes((tmp_path / picture_name(2)).read_bytes())
    assert not SampleFolder(tmp_path).has_all(SETTINGS, 4)
    with pytest.raises(
        UserError, match="unfinished: 3 of the 4" if damage == "removed" else "changed.*000001.png"
    ):
        check_recorded(tmp_path)
    assert draw(tmp_path) == [1]
    assert levels(tmp_path)[path.name] == 1


def test_a_picture_replaced_during_an_interruption_is_generated_again(tmp_path):
    interrupted(tmp_path)
    (tmp_path / picture_name(0)).write_bytes((tmp_path / picture_name(1)).read_bytes())
    assert draw(tmp_path) == [0, 2, 3]


def test_a_truncated_journal_loses_only_the_last_batch(tmp_path):
    interrupted(tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-5])
    assert draw(tmp_path) == [1, 2, 3]


def test_pictures_that_no_record_lists_are_neither_measured_nor_drawn_over(tmp_path):
    draw(tmp_path, count=2)
    stray = tmp_path / picture_name(2)
    stray.write_bytes(b"mine")
    for ask in (lambda: draw(tmp_path, count=4), lambda: check_recorded(tmp_path)):
        with pytest.raises(UserError, match=r"does not list \(000002.png\)"):
            ask()
    assert stray.read_bytes() == b"mine"
    assert not SampleFolder(tmp_path).has_all(SETTINGS, 2)


@pytest.mark.parametrize("theirs", ["000000.png", "notes.txt", RECORD])
def test_a_folder_with_other_files_is_refused_and_unchanged(tmp_path, theirs):
    (tmp_path / theirs).write_text('{"mine": 1}')
    with pytest.raises(UserError, match=f"output=.* is not empty .found {theirs}., and nothing there says"):
        draw(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {theirs: '{"mine": 1}'}


def test_a_record_of_an_earlier_release_is_recognised(tmp_path):
    draw(tmp_path)
    record = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(
        json.dumps({key: value for key, value in record.items() if key != "files"})
    )
    assert SampleFolder(tmp_path).has_all(SETTINGS, 4)
    check_recorded(tmp_path)
    (tmp_path / picture_name(3)).unlink()
    assert draw(tmp_path) == [3]


def test_two_commands_at_once_are_refused(tmp_path):
    with SampleFolder(tmp_path).drawing(SETTINGS, {}, 1) as drawing:
        with pytest.raises(UserError, match=r"another lediflow\.sample is drawing into"):
            draw(tmp_path)
        drawing.add([0], image(0, SETTINGS)[None], nfe=2)
    assert SampleFolder(tmp_path).has_all(SETTINGS, 1)


def test_a_damaged_record_is_refused_with_a_sentence(tmp_path):
    (tmp_path / RECORD).write_text('{"count": 4')
    with pytest.raises(UserError, match=r"samples.json is incomplete, or not JSON .*; remove it"):
        draw(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"count": "4"}, {"count": 10**15}, {"count": -1}, {"files": [1]}, {"count": None}, {"nfe": "x"}]
)
def test_a_record_with_values_of_other_types_is_refused(tmp_path, wrong):
    draw(tmp_path)
    record = json.loads((tmp_path / RECORD).read_text()) | wrong
    (tmp_path / RECORD).write_text(
        json.dumps({key: value for key, value in record.items() if value is not None})
    )
    for look in (check_recorded, draw):
        with pytest.raises(UserError, match=r"samples\.json"):
            look(tmp_path)


def test_invalid_lines_of_a_journal_are_skipped(tmp_path):
    interrupted(tmp_path)
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"files": 3}\n[]\nnull\n{"files": {}, "nfe": "x"}\n\xff\n')
    assert draw(tmp_path) == [2, 3]


def test_folders_without_a_record_are_measured(tmp_path):
    (tmp_path / "a.png").touch()
    check_recorded(tmp_path)
