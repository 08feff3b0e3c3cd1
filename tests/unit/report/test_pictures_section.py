"""Pictures while training in the report: which are shown, as what, and how much room they take."""

import base64
import hashlib
import io
import re

import numpy as np
import pytest
from PIL import Image

from lediflow.report.content import ReportData
from lediflow.report.page import build_report
from lediflow.report.pictures import NEWEST, pictures_of
from lediflow.report.run_log import read_log
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import JsonlTracker


def png(width, height, seed=0):
    """Noise, which no PNG compresses."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Run:
    """What `read_run` knows of a run folder; its log is read when it is asked for."""

    def __init__(self, root):
        self.folder, self.title = RunFolder(root), root.name

    @property
    def log(self):
        return read_log(self.folder.events)


def make_run(root, milestones, width=60, height=40):
    """A run with a picture at each milestone; what `read_run` knows of it."""
    log = JsonlTracker(root / "events.jsonl")
    for seen in milestones:
        content, file = png(width, height, seen), f"pictures/{seen:012d}/samples.png"
        (root / file).parent.mkdir(parents=True)
        (root / file).write_bytes(content)
        about = {"file": file, "sha256": hashlib.sha256(content).hexdigest(), "caption": f"At <{seen}>."}
        log.record("pictures", seen, pictures={"samples": about}, seconds=0.1)
    log.close()
    return Run(root)


def decoded(picture):
    return base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))


def test_the_newest_milestones_are_shown_newest_first_and_the_others_counted(tmp_path):
    [found] = pictures_of([make_run(tmp_path, [1024, 2048, 4096, 8192])])
    assert [milestone.images_seen for milestone in found.milestones] == [8192, 4096, 2048]
    assert (found.count, len(found.milestones)) == (4, NEWEST)


def test_a_picture_in_the_page_is_the_file_byte_for_byte(tmp_path):
    [found] = pictures_of([make_run(tmp_path, [1024])])
    [picture] = found.milestones[0].pictures
    assert decoded(picture) == (tmp_path / "pictures/000000001024/samples.png").read_bytes()
    assert (picture.width, picture.height, picture.note) == (60, 40, "")


def test_discarded_events_are_not_shown(tmp_path):
    run = make_run(tmp_path, [1024, 2048])
    log = JsonlTracker(tmp_path / "events.jsonl")
    log.record("resume", 1024)
    log.close()
    [found] = pictures_of([run])
    assert [milestone.images_seen for milestone in found.milestones] == [1024]


@pytest.mark.parametrize("file", ["../outside.png", "/etc/hostname", "pictures/lost.png"])
def test_a_file_that_is_elsewhere_or_lost_is_not_shown_but_named(tmp_path, file):
    (tmp_path / "outside.png").write_bytes(png(8, 8))
    run = make_run(tmp_path / "run", [])
    log = JsonlTracker(run.folder.events)
    sha256 = hashlib.sha256(png(8, 8)).hexdigest()
    log.record("pictures", 1024, pictures={"samples": {"file": file, "sha256": sha256, "caption": ""}})
    log.close()
    [picture] = pictures_of([run])[0].milestones[0].pictures
    assert picture.uri == "" and file in picture.note


def test_a_file_that_was_changed_is_not_shown(tmp_path):
    run = make_run(tmp_path, [1024])
    (tmp_path / "pictures/000000001024/samples.png").write_bytes(png(60, 40, seed=9))
    assert pictures_of([run])[0].milestones[0].pictures[0].uri == ""


def test_events_of_another_form_are_left_out(tmp_path):
    log = JsonlTracker(tmp_path / "events.jsonl")
    log.record("pictures", 1024, pictures=["samples"])
    log.record("pictures", 2048, pictures={"samples": "a.png"})
    log.close()
    [found] = pictures_of([Run(tmp_path)])
    assert [milestone.pictures for milestone in found.milestones] == [[]]


def test_many_large_pictures_leave_the_page_below_two_megabytes_the_newest_in_full(tmp_path):
    runs = [make_run(tmp_path / name, [1024, 2048, 4096], 1000, 200) for name in ("a", "b")]  # 0.6 MB each
    found = pictures_of(runs)
    shown = [[milestone.pictures[0] for milestone in run.milestones] for run in found]
    assert [pictures[0].note for pictures in shown] == ["", ""]
    assert "Shown at 1/2" in shown[0][1].note
    assert all(picture.uri or "Too large" in picture.note for run in shown for picture in run)
    assert len(build_report(ReportData(title="", lead="", training_pictures=found))) < 2.1e6


def test_the_section_escapes_what_it_shows_and_opens_the_newest_milestone(tmp_path):
    found = pictures_of([make_run(tmp_path / "<run>", [1024, 2048])])
    page = build_report(ReportData(title="", lead="", training_pictures=found))
    assert "At &lt;2048&gt;." in page and "<run>" not in page
    assert re.findall(r"<details( open)?>", page) == [" open", ""]
    assert 'href="#pictures"' not in page  # one section needs no navigation


def test_a_report_without_pictures_has_no_section():
    assert "Pictures while training" not in build_report(ReportData(title="", lead=""))
