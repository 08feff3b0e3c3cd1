"""Edits in the report: the strip of each folder, its numbers and settings; what is no finished edit is refused."""

import json

import numpy as np
import pytest
from harness.edited import make_edit

from lediflow.editing.folder import RECORD, EditFolder
from lediflow.errors import UserError
from lediflow.report.content import ReportData
from lediflow.report.edits import ENDS, HIGHEST, MIDDLE, NOISE, NORM, edits_of
from lediflow.report.page import build_report

FRAMES = np.zeros((3, 8, 8, 1), dtype=np.uint8)
WAY = {"prior_nll": [-1.0, -0.25, -2.0], "w_nll": [1.4, 0.9, 1.4], "w_norm": [8.0, 6.0, 8.0]}
END = {"sha256": "ab", "round_trip": {"dopri5": 0.0012, "midpoint 4": 0.03}}
INTERPOLATED = {
    "command": "interpolate",
    "settings": {"steps": 4, "path": "linear", "seeds": [], "labels": []},
    "places": {"images": ["photographs/a.png", "b <1>.png"], "output": "x/y"},
    "ends": [END, END],
    "ways": {"w, linear": WAY, "w, spherical": WAY, "z, linear": WAY},
    "nfe": 8,
    "warnings": ["b <1>.png: mapped to noise"],
}
INPAINTED = {
    "command": "inpaint",
    "settings": {"steps": 8, "z_from": "masked"},
    "image": {"sha256": "cd"},
    "mask": {"origin": "rectangle", "repainted": 0.25},
    "nfe": 16,
    "line_error": 2.4e-7,
    "seam": {"results": [1.02, None, 1.2]},
    "warnings": [],
}


def test_the_ways_of_an_interpolation_are_compared_by_their_numbers(tmp_path):
    [edit] = edits_of([make_edit(tmp_path, INTERPOLATED, FRAMES)])
    ways, ends = edit.tables
    assert list(ways.rows) == ["w, linear", "z, linear", "w, spherical"]
    assert dict(zip(ways.columns, ways.rows["w, linear"], strict=True)) == {
        ENDS: "-1.500", MIDDLE: "-0.250", HIGHEST: "-0.250", NOISE: "0.900", NORM: "6.000",
    }  # fmt: skip
    assert ends.columns == ["round-trip error, dopri5", "round-trip error, midpoint 4"]
    assert ends.rows == {"1": ["0.0012", "0.03"], "2": ["0.0012", "0.03"]}
    assert edit.settings == {"images": "a.png, b <1>.png", "steps": "4", "path": "linear"}


def test_inpainting_shows_its_strip_and_how_well_known_pixels_stayed_on_their_line(tmp_path):
    [edit] = edits_of([make_edit(tmp_path, INPAINTED, FRAMES)])
    assert list(edit.numbers.values()) == ["16", "2.4e-07", "0.25", "1.02, \N{EN DASH}, 1.2"]
    assert (edit.picture.width, edit.picture.height, edit.picture.note) == (24, 8, "")


def test_several_photographs_have_a_row_each(tmp_path):
    one = {"image": {"sha256": "cd"}, "mask": {"repainted": 0.25}, "files": ["000000.png"], "line_error": 0.5}
    record = {**INPAINTED, "pictures": [one, {**one, "line_error": 1.0}]}
    [table] = edits_of([make_edit(tmp_path, record, FRAMES)])[0].tables
    assert table.title == "photographs"
    assert sorted(table.rows["2"]) == ["0.25", "1"]
    record = {**INPAINTED, "pictures": [{"number": number, "line_error": 0.5} for number in range(21)]}
    [table] = edits_of([make_edit(tmp_path / "more", record, FRAMES)])[0].tables
    assert (table.title, list(table.rows)) == ("photographs, the first 20 of 21", [*map(str, range(20))])
    record["pictures"] = [{"number": 0, "result": "written"}]  # as of anonymise: nothing to compare
    assert edits_of([make_edit(tmp_path / "one", record, FRAMES)])[0].tables == []


def test_a_command_that_this_page_does_not_know_is_shown_with_its_numbers(tmp_path):
    record = {
        "command": "sharpen",
        "settings": {},
        "gain": [{"db": 3.0}],
        "lost": {"detail": 2},
        "is_sharp": True,
    }
    rows = [{"strength": -1.0, "moved": -0.9}, {"strength": 1.0, "moved": 0.8}]
    [edit] = edits_of([make_edit(tmp_path, {**record, "strengths": rows}, FRAMES)])
    assert (edit.title, edit.numbers) == ("Sharpen", {"lost, detail": "2"})
    gain, strengths = sorted(edit.tables)
    assert gain == ("gain", "", ["db"], {"1": ["3"]})
    assert strengths == ("the photograph", "strength", ["moved"], {"-1": ["-0.9"], "1": ["0.8"]})


def test_an_edit_without_a_strip_shows_its_first_picture(tmp_path):
    folder = EditFolder(tmp_path, None)
    folder.add_numbered(FRAMES)
    folder.write({"command": "anonymise", "settings": {}})
    assert edits_of([tmp_path])[0].picture.width == 8


def test_the_page_shows_edits_as_text_and_pictures_of_its_own(tmp_path):
    folders = [
        make_edit(tmp_path / name, record, FRAMES) for name, record in (("a", INTERPOLATED), ("b", INPAINTED))
    ]
    page = build_report(ReportData(title="", lead="", edits=edits_of(folders)))
    assert page.count('<img src="data:image/png;base64,') == 2
    assert "a.png, b &lt;1&gt;.png" in page and "b <1>" not in page
    assert "z_from" in page and "2.4e-07" in page


def test_a_strip_that_was_changed_is_not_shown(tmp_path):
    folder = make_edit(tmp_path, INPAINTED, FRAMES)
    (folder / "strip.png").write_bytes(b"other")
    [edit] = edits_of([folder])
    assert edit.picture.uri == "" and "was changed" in edit.picture.note


def test_a_strip_that_is_wider_than_the_section_has_room_for_is_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 500, 500, 3), dtype=np.uint8)
    [edit] = edits_of([make_edit(tmp_path, INPAINTED, noise)])
    assert "Shown at 1/" in edit.picture.note and edit.picture.uri


def test_what_is_no_finished_edit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no edit\.json; give the output folder"):
        edits_of([tmp_path])
    (tmp_path / RECORD).write_text(json.dumps({"command": "vary", "unfinished": True, "files": {"a": None}}))
    with pytest.raises(UserError, match="is unfinished"):
        edits_of([tmp_path])
    (tmp_path / RECORD).write_text(json.dumps({"command": "vary", "settings": [], "files": {}}))
    with pytest.raises(UserError, match=r"edit\.json: settings: found"):
        edits_of([tmp_path])
