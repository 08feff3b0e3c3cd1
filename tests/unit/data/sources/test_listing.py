"""Which files are images, in what order, and which classes they have."""

import re

import pytest
from harness.photographs import image_file

from lediflow.data.sources import SourceError, open_source


def files(*names: str) -> dict[str, bytes]:
    return {name: name.encode() for name in names}


def test_a_listing_is_sorted_for_any_order_on_disk(write, find):
    assert find(write("all", files("c.png", "a.png", "b.png"))).names == ["a.png", "b.png", "c.png"]


def test_folders_that_all_images_share_are_not_classes(write, find):
    found = find(write("all", files("set/train/dog/x/1.png", "set/train/cat/1.png")))
    assert found.listing.classes == ["cat", "dog"]


@pytest.mark.parametrize("names", [["1.png", "2.png"], ["deep/down/1.png"], ["loose.png", "cat/1.png"]])
def test_without_a_folder_for_every_image_there_are_no_classes(write, find, names):
    listing = find(write("all", files(*names))).listing
    assert listing.classes is None
    assert set(listing.labels) == {-1}


def test_hidden_files_and_mac_resource_forks_are_skipped_and_counted(write, find):
    found = find(write("all", files("1.png", "._1.png", ".cache/2.png", "__MACOSX/3.png")))
    assert found.names == ["1.png"]
    assert found.listing.passed_over.kinds == {"hidden": 3}


@pytest.mark.parametrize(
    "name", ["a.avif", "a.JFIF", "a.jp2", "a.j2k", "a.jpe", "a.ppm", "a.PGM", "a.tga", "a.webp", "x.y.Tiff"]
)
def test_kinds_that_pillow_opens_are_pictures_in_upper_case_too(write, find, name):
    assert find(write("all", files("0.png", name))).names == ["0.png", name]


def test_other_files_are_counted_by_kind_and_the_first_are_named(write, find):
    names = ("1.png", "a.HEIC", "b.heic", "c.svg", "README", ".hidden.png")
    passed_over = find(write("all", files(*names))).listing.passed_over
    assert passed_over.kinds == {".heic": 2, ".svg": 1, "no extension": 1, "hidden": 1}
    assert str(passed_over).startswith("5 files (2 .heic, ")
    assert str(passed_over).endswith("): .hidden.png, README, a.HEIC, ...")


def test_captions_of_pictures_are_not_reported_but_other_captions_are(write, find):
    passed_over = find(write("all", files("1.png", "1.txt", "1.json", "2.txt", "1.cls"))).listing.passed_over
    assert passed_over.kinds == {".txt": 1, ".cls": 1}


def test_a_name_that_is_not_utf8_can_be_printed(write, find):
    passed_over = find(write("all", {"1.png": b"", "\udcff.xyz": b""})).listing.passed_over
    assert str(passed_over) == r"1 file (1 .xyz): \udcff.xyz"


def test_adding_an_image_or_changing_its_length_changes_the_identity_of_a_folder(write):
    identities = []
    for change in (files("1.png"), files("2.png"), {"1.png": b"longer than before"}):
        identities.append(str(open_source(write("all", change)).identity().record))
    assert len(set(identities)) == 3


def test_a_source_without_images_is_refused_with_its_contents_and_the_accepted_kinds(write, find):
    folder = write("all", files("a.md", "b.md", "c"))
    with pytest.raises(
        SourceError, match=r"found 3 files \(2 \.md, 1 no extension\): a\.md, b\.md, c; images end in .*\.png"
    ):
        find(folder)


def test_a_missing_source_is_named_with_what_may_be_given(tmp_path, find):
    with pytest.raises(SourceError, match=r"source=.*nowhere does not exist; give a folder of images"):
        find(tmp_path / "nowhere")


def test_an_image_that_vanished_is_unreadable(write, find):
    folder = write("all", {"0.png": image_file(0)})
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(OSError, match="No such file"):
        _ = find(folder).contents


def test_linked_folders_of_classes_are_followed(write, find):
    folder, elsewhere = write("all", files("cat/1.png")), write("elsewhere", files("2.png", "young/3.png"))
    (folder / "dog").symlink_to(elsewhere)
    found = find(folder)
    assert found.class_of == {"cat/1.png": "cat", "dog/2.png": "dog", "dog/young/3.png": "dog"}
    assert found.contents == [b"cat/1.png", b"2.png", b"young/3.png"]


def test_a_circular_link_is_followed_once(write, find):
    folder = write("all", files("cat/1.png", "dog/2.png"))
    (folder / "cat/all").symlink_to(folder)
    (folder / "dog/parent").symlink_to("..")
    assert find(folder).names == ["cat/1.png", "dog/2.png"]


def test_a_broken_link_to_a_folder_is_named(write, find):
    folder = write("all", files("cat/1.png"))
    (folder / "dog").symlink_to(folder / "not mounted")
    with pytest.raises(SourceError, match=r"source=.*all cannot be read: .*all/dog: No such file"):
        find(folder)


def table(**labels: str) -> dict[str, bytes]:
    rows = "".join(f"{name}.png,{label}\n" for name, label in labels.items())
    return {"list.csv": f"path,label\n{rows}".encode()}


NO_LABEL = (
    r"no classes: 1 of 2 images has no label, the first is b\.png \(empty values, nan, lists and negative"
)
NOTES = {
    "folders": (files("a/1.png", "b/1.png"), r"2 classes \(a, b\)$"),
    "a folder called nan": (files("nan/1.png", "cat/1.png", "None/1.png"), r"3 classes \(None, cat, nan\)$"),
    "one picture beside them": (
        files("a/1.png", "b/1.png", "stray.png"),
        r"no classes: 1 of 3 images is next to the folders \(a, b\) instead of in one, the first is stray\.png;",
    ),
    "no folders": (files("1.png", "2.png"), "no classes: no image has a label, and none is in a folder"),
    "an empty label": (table(a="cat", b=""), NO_LABEL),
    "nan among names": (table(a="cat", b="nan"), NO_LABEL),
    "a negative number": (table(a="1", b="-1"), NO_LABEL),
    "numbers with gaps": (table(a="1", b="3"), r"4 classes \(0, 1, 2, 3\), of which 2 occur$"),
    "numbers and names": (
        table(a="1", b="cat"),
        r"2 classes \(1, cat\)\n.* mix numbers and names \(1, cat\): all",
    ),
    "null among names": (
        table(a="null", b="cat"),
        r"2 classes \(cat, null\)\none class is called null: if this means",
    ),
    "unread columns": (
        {"list.csv": b"path,labels,kind\na.png,cat,x\nb.png,dog,x\n"},
        r"no classes: no image has a label.*\ncolumns of the list that are not read: labels, kind; labels are read",
    ),
    "unread columns of a list of folders": (
        {"list.csv": b"path,labels\nx/a.png,cat\ny/b.png,dog\n"},
        r"2 classes \(x, y\)\ncolumns of the list that are not read: labels;",
    ),
    "a list of paths": ({"list.csv": b"a.png\nb.png\n"}, "no classes: no image has a label, and none[^\n]*$"),
    "folders that look alike": (
        files("Cat/1.png", "cat/1.png", "dog/1.png", "\u00fc/1.png", "u\u0308/1.png"),
        "5 classes .*\nnames of classes that differ only in capitals, spaces or the encoding of accents: "
        "Cat, cat; u\u0308, \u00fc; they are",
    ),
    "labels that look alike": (
        table(a="cat", b="CAT"),
        "2 classes .*\nnames of classes .*: CAT, cat; they are",
    ),
    "folders called by numbers": (
        files("1/1.png", "2/1.png", "10/1.png"),
        r"3 classes \(1, 10, 2\)\n.* but folder 1 is class 0: folders are",
    ),
    "folders called by their numbers": (files("00/1.png", "01/1.png"), r"2 classes \(00, 01\)$"),
    "many": (files(*(f"{n}/1.png" for n in range(9))), r"9 classes \(0, 1, 2, 3, 4, \.\.\.\)$"),
}


@pytest.mark.parametrize("case", NOTES)
def test_a_listing_says_how_many_classes_there_are_or_why_none(write, find, case):
    given, expected = NOTES[case]
    folder = write("all", given)
    notes = find(folder / "list.csv" if "list.csv" in given else folder).listing.class_notes
    assert re.match(expected, "\n".join(notes))


def test_labels_that_some_images_lack_are_not_replaced_by_folders(write, find):
    rows = b"path,label\nx/a.png,cat\ny/b.png,\n"
    assert find(write("all", {"list.csv": rows}) / "list.csv").listing.classes is None


def test_a_list_with_absolute_and_relative_paths_has_no_classes(write, find, tmp_path):
    rows = f"path\nx/a.png\n{tmp_path}/y/b.png\n".encode()
    assert find(write("all", {"list.csv": rows}) / "list.csv").listing.labels == [-1, -1]
