"""A picture's label is in the file of its own name, in any kind of archive and at any place in it."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from harness.photographs import image_file

from lediflow.data.shards.reader import ShardReader
from lediflow.data.sources import list_images, open_source
from lediflow.errors import UserError

Files = list[tuple[str, bytes]]
KINDS = ["tar", "tar.gz", "tar.xz", "zip", "folder of tars", "read in place"]


def write_archive(folder: Path, kind: str, files: Files) -> Path:
    """An archive of these files, in this order, doubled names included."""
    suffix = "tar" if " " in kind else kind
    path = folder / f"set.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files:
                archive.writestr(name, content)
        return path
    with tarfile.open(path, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[suffix]) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def labels_by_picture(folder: Path, kind: str, files: Files) -> dict[str, int]:
    """Name of a picture without ./ and suffix -> its label, as prepare or a reader of the tar sees it; none is -1."""
    path = write_archive(folder, kind, files)
    if kind == "read in place":
        reader = ShardReader.open(folder)
        numbers = np.arange(len(reader))
        return dict(zip(reader.keys(numbers), reader.index.table["label"].tolist(), strict=True))
    source = open_source(folder if kind == "folder of tars" else path).ready(folder / "scratch")
    listing = list_images(source)
    names = [source.inner_name(image).removeprefix("./").rpartition(".")[0] for image in listing.images]
    return dict(zip(names, listing.labels, strict=True))


def pictures(*names: str) -> Files:
    return [(name, image_file(number)) for number, name in enumerate(names)]


def interleaved(*names: str) -> Files:
    """Each picture with a .cls of its own, whose label is its number."""
    return [
        file
        for number, (name, content) in enumerate(pictures(*names))
        for file in ((name, content), (f"{name.rpartition('.')[0]}.cls", str(number).encode()))
    ]


ARCHIVES = {
    "names with dots": (interleaved("a.1.png", "a.2.png"), {"a.1": 0, "a.2": 1}),
    "a plain name beside dotted ones": (
        interleaved("a.png", "a.1.png", "a.v2.png"),
        {"a": 0, "a.1": 1, "a.v2": 2},
    ),
    "pictures first, then labels": (
        [*pictures("a.png", "b.png"), ("b.cls", b"1"), ("a.cls", b"0")],
        {"a": 0, "b": 1},
    ),
    "labels first, then pictures": (
        [("a.cls", b"0"), ("b.json", b'{"label": 1}'), *pictures("b.png", "a.png")],
        {"a": 0, "b": 1},
    ),
    "upper case": (
        [*pictures("a.PNG", "b.Jpg"), ("a.CLS", b"3"), ("b.Json", b'{"cls": 1}')],
        {"a": 3, "b": 1},
    ),
    "names with and without ./": (
        [*pictures("./a.png", "b.png"), ("a.cls", b"1"), ("./b.cls", b"0")],
        {"a": 1, "b": 0},
    ),
    "folders with dots": (interleaved("v1.0/a.png", "v1.1/a.png"), {"v1.0/a": 0, "v1.1/a": 1}),
    "webdataset's fields": (
        [*pictures("0.image.png", "1.image.png"), ("0.cls", b"5"), ("1.cls", b"6"), ("1.meta.json", b"{}")],
        {"0.image": 5, "1.image": 6},
    ),
    "a label file of its own before the group's": (
        [*pictures("a.png", "a.1.png"), ("a.cls", b"4"), ("a.1.cls", b"2")],
        {"a": 4, "a.1": 2},
    ),
    "an empty .cls beside a .json": (
        [*pictures("a.png"), ("a.cls", b"\n"), ("a.json", b'{"label": 2}')],
        {"a": 2},
    ),
    "macOS's forks": ([*interleaved("a.png"), ("._a.png", b"x"), ("._a.cls", b"7")], {"a": 0}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ARCHIVES)
def test_every_picture_gets_the_label_of_its_own_name(tmp_path, kind, case):
    files, expected = ARCHIVES[case]
    assert labels_by_picture(tmp_path, kind, files) == expected


UNCLEAR = {
    "one label for two pictures": [*pictures("0.left.png", "0.right.png"), ("0.cls", b"1")],
    "one of two has no label of its own": [
        *pictures("0.a.png", "0.b.png"),
        ("0.cls", b"1"),
        ("0.a.cls", b"2"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", UNCLEAR)
def test_a_label_that_may_be_meant_for_several_pictures_is_refused_with_their_names(tmp_path, kind, case):
    with pytest.raises(UserError, match=r"set\..*: 0\.cls may be the label of 0\.\w+\.png or of 0\.\w+\.png"):
        labels_by_picture(tmp_path, kind, UNCLEAR[case])


DOUBLED = {
    "a.png": [*interleaved("a.png", "b.png"), *pictures("a.png")],
    "b.png": [*pictures("b.png", "c.png"), *pictures("./b.png")],
    "a.cls": [*interleaved("a.png", "b.png"), ("a.cls", b"9")],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DOUBLED)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_repeated_name_is_refused(tmp_path, kind, name):
    with pytest.raises(UserError, match=rf"set\..* occur twice under one name \({name}\)"):
        labels_by_picture(tmp_path, kind, DOUBLED[name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe1\x00", b"\x05" + bytes(7)])
def test_an_unreadable_label_counts_as_none(tmp_path, kind, content):
    files = [*pictures("a.png", "b.png"), ("a.cls", content), ("b.cls", b"1")]
    assert set(labels_by_picture(tmp_path, kind, files).values()) == {-1}


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_of_a_missing_picture_is_not_taken_for_another(tmp_path, kind):
    files = [*pictures("a.png", "b.png"), ("a.1.cls", b"1"), ("b.cls", b"0")]
    assert labels_by_picture(tmp_path, kind, files) == {"a": -1, "b": -1}


def test_links_in_a_tar_are_counted(tmp_path):
    with tarfile.open(write_archive(tmp_path, "tar", pictures("a.png")), "a") as tar:
        for name, kind in (("b.png", tarfile.LNKTYPE), ("c.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.png"
            tar.addfile(member)
    listing = list_images(open_source(tmp_path / "set.tar").ready(tmp_path))
    assert [image.name for image in listing.images] == ["a.png"]
    assert str(listing.passed_over) == "2 files (2 link): b.png, c.png"


@pytest.mark.parametrize("kind", ["tar", "read in place"])
@pytest.mark.parametrize(
    "content",
    [b'{"label": {"name": "cat"}}', b'{"label": [1, 2]}', b'{"label": "\\ud800"}', b"[" * 100_000],
    ids=["object", "list", "half a surrogate pair", "nested too deeply"],
)
def test_json_that_holds_no_plain_label_has_none(tmp_path, kind, content):
    files = [*pictures("a.png", "b.png"), ("a.json", content)]
    assert labels_by_picture(tmp_path, kind, files) == {"a": -1, "b": -1}


@pytest.mark.parametrize("kind", ["tar", "read in place"])
def test_an_empty_label_in_json_leaves_room_for_cls(tmp_path, kind):
    files = [*pictures("a.png"), ("a.json", b'{"label": null, "cls": 5}')]
    assert labels_by_picture(tmp_path, kind, files) == {"a": 5}
