"""Pictures edited in place are noticed although names and lengths stay the same; touching them is not an edit."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from lediflow.data import source_record
from lediflow.data.prepare import PrepareConfig, prepare
from lediflow.data.source_record import DIGESTS_NAME, RECORD_NAME
from lediflow.errors import UserError

EPOCH = 1_000_000_000  # a zip knows no times before 1980


def draw(path: Path, grey: int) -> None:
    """A picture whose file has the same length for any grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (16, 16), grey).save(path, "BMP")


def touch(path: Path, seconds: int) -> None:
    os.utime(path, (EPOCH + seconds, EPOCH + seconds))


class Source:
    """Six pictures of two classes in a folder, a list or an archive, and a way to change them."""

    def __init__(self, root: Path, kind: str):
        self.root, self.kind = root, kind
        for number in range(6):
            self.edit(number, 10 * number)
        self.pack(1000)

    def edit(self, number: int, grey: int) -> None:
        draw(self.root / f"pictures/{number % 2}/{number}.bmp", grey)

    @property
    def path(self) -> Path:
        names = {"folder": "pictures", "list": "list.csv", "folder of archives": "archives"}
        return self.root / names.get(self.kind, f"all.{self.kind}")

    def pack(self, seconds: int) -> None:
        """Bring the edits to where they are read, modified at this time."""
        pictures = sorted((self.root / "pictures").rglob("*.bmp"))
        for picture in pictures:
            touch(picture, seconds)
        if self.kind == "list":
            lines = [f"{picture.relative_to(self.root)},{picture.parent.name}\n" for picture in pictures]
            self.path.write_text("path,label\n" + "".join(lines))
        elif self.kind == "folder of archives":
            shutil.make_archive(str(self.path / "all"), "zip", self.root / "pictures")
            touch(self.path / "all.zip", seconds)
        elif self.kind != "folder":
            kinds = {"tar": "tar", "tar.gz": "gztar", "zip": "zip"}
            shutil.make_archive(str(self.root / "all"), kinds[self.kind], self.root / "pictures")
            touch(self.path, seconds)


KINDS = ["folder", "list", "tar", "tar.gz", "zip", "folder of archives"]


@pytest.fixture(params=KINDS)
def source(request, tmp_path) -> Source:
    return Source(tmp_path, request.param)


def made(source: Source, report=None, **changes):
    options = {"size": 16, "shard_samples": 2, "workers": 1} | changes
    output = str(source.root / "out")
    return prepare(PrepareConfig(source=str(source.path), output=output, **options), report)


@pytest.fixture
def plain(tmp_path) -> Source:
    return Source(tmp_path, "folder")


def test_a_picture_that_was_edited_in_place_is_noticed(source):
    made(source)
    source.edit(3, 31)
    source.pack(2000)
    # the ends of a small archive show the edit already; a folder shows it by its time and content alone
    with pytest.raises(UserError, match=r"edited since, the first is .*3\.bmp|was made from other files"):
        made(source)


def test_touched_pictures_are_the_same_source(source):
    before = made(source).index.fingerprint
    source.pack(2000) if source.kind == "folder" else touch(source.path, 2000)
    again = made(source)
    assert again.is_reused
    assert again.index.fingerprint == before


def test_pictures_are_compared_once_after_they_were_touched(plain, monkeypatch):
    made(plain)
    plain.pack(2000)
    made(plain)
    monkeypatch.setattr(source_record, "list_images", lambda source: pytest.fail("read again"))
    assert made(plain).is_reused


def test_an_edit_in_the_middle_of_a_large_archive_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("lediflow.data.sources.protocol.SAMPLED_BYTES", 100)
    source = Source(tmp_path, "tar")
    made(source)
    content = bytearray(source.path.read_bytes())
    place = content.index(bytes([30] * 256))  # the pixels of picture 3
    content[place] = 99
    source.path.write_bytes(content)
    with pytest.raises(UserError, match=r"1 of the 6 pictures was edited since, the first is ./1/3\.bmp"):
        made(source)


def test_a_label_that_was_edited_in_an_archive_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("lediflow.data.sources.protocol.SAMPLED_BYTES", 1)
    source = Source(tmp_path, "zip")

    def write(label: bytes) -> None:
        with zipfile.ZipFile(source.path, "w") as archive:
            for number in range(2):
                archive.write(source.root / f"pictures/{number}/{number}.bmp", f"{number}.bmp")
                archive.writestr(f"{number}.cls", label)

    write(b"1")
    made(source)
    write(b"2")
    touch(source.path, 3000)
    with pytest.raises(UserError, match="its list of pictures or classes was edited since"):
        made(source)


class StoppedError(Exception):
    pass


def stop_after_two_shards(title: str, *, unit: str = "images"):
    def progress(done: int, total: int) -> None:
        if title == "prepare" and done >= 4:
            raise StoppedError

    return progress


@pytest.mark.parametrize(("grey", "is_kept"), [(30, True), (31, False)])
def test_an_interrupted_run_keeps_its_shards_unless_their_pictures_were_edited(plain, grey, is_kept):
    with pytest.raises(StoppedError):
        made(plain, stop_after_two_shards)
    shards = sorted((plain.root / "out").glob("*.tar"))
    before = [path.stat().st_mtime_ns for path in shards]
    for number in range(6):
        plain.edit(number, 10 * number + grey - 30)
    plain.pack(2000)
    made(plain)
    assert ([path.stat().st_mtime_ns for path in shards] == before) == is_kept
    again = Source(plain.root / "again", "folder")
    for number in range(6):
        again.edit(number, 10 * number + grey - 30)
    made(again)
    for path in shards:
        assert path.read_bytes() == (again.root / "out" / path.name).read_bytes()


@pytest.mark.parametrize(("seconds", "is_doubted"), [(1000, False), (3000, True)])
def test_a_set_of_an_earlier_version_is_reused_with_a_warning_if_the_source_is_newer(
    plain, seconds, is_doubted
):
    made(plain)
    for name in (RECORD_NAME, DIGESTS_NAME):
        (plain.root / "out" / name).unlink()
    touch(plain.root / "out/index.json", 2000)
    plain.pack(seconds)
    again = made(plain)
    assert again.is_reused
    assert again.notes[0] == "2 classes (0, 1)"
    assert any("prepare it again" in note for note in again.notes) == is_doubted


def test_reported_facts_are_stored_and_reported_again(plain):
    (plain.root / "pictures/0/notes.rst").write_text("x")
    first, again = made(plain), made(plain)
    assert first.notes == again.notes == ["2 classes (0, 1)", "skipped: 1 file (1 .rst): 0/notes.rst"]
    record = json.loads((plain.root / "out" / RECORD_NAME).read_text())
    assert (record["notes"], record["passed_over"]) == (first.notes, {".rst": 1})


def test_one_picture_in_two_classes_is_reported(plain):
    plain.edit(1, 0)
    assert made(plain).notes[1:] == [
        "duplicates of another class than the first picture of their content: 1; the first is kept: 1/1.bmp (1) is "
        "0/0.bmp (0)"
    ]


def test_pictures_that_are_copied_are_the_same_set_wherever_their_shards_are_made(plain):
    first = made(plain).index.fingerprint
    copied = Source(plain.root / "copy", "folder")
    copied.pack(5000)
    assert made(copied).index.fingerprint == first
