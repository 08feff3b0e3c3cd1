import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from lediflow.data.sources import list_images, open_source
from lediflow.errors import UserError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def content(path: Path) -> dict[str, bytes]:
    source = open_source(path)
    return {image.name: source.read(image) for image in list_images(path).images}


def as_archive(folder: Path, kind: str) -> Path:
    return Path(shutil.make_archive(str(folder.parent / "archive"), kind, folder))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_lists_and_reads_as_the_folder_it_was_made_of(tmp_path, kind):
    folder = touch(tmp_path / "all", "b/2.png", "a/1.JPG", "a/0.webp", "notes.txt")
    archive = as_archive(folder, kind)
    names = {image.name.removeprefix("./"): data for image, data in zip_read(archive)}
    assert names == content(folder)
    assert list_images(archive).labels == list_images(folder).labels == [0, 0, 1]


def zip_read(archive: Path):
    source = open_source(archive)
    return [(image, source.read(image)) for image in list_images(archive).images]


def test_a_listing_is_sorted_whatever_the_order_on_disk(tmp_path):
    folder = touch(tmp_path, "c.png", "a.png", "b.png")
    assert [image.name for image in list_images(folder).images] == ["a.png", "b.png", "c.png"]


def test_folders_that_all_images_share_are_not_classes(tmp_path):
    folder = touch(tmp_path, "set/train/dog/x/1.png", "set/train/cat/1.png")
    assert list_images(folder).classes == ["cat", "dog"]


@pytest.mark.parametrize("names", [["1.png", "2.png"], ["deep/down/1.png"], ["loose.png", "cat/1.png"]])
def test_without_a_folder_for_every_image_there_are_no_classes(tmp_path, names):
    listing = list_images(touch(tmp_path, *names))
    assert listing.classes is None
    assert set(listing.labels) == {-1}


def test_hidden_files_and_mac_resource_forks_are_left_out(tmp_path):
    folder = touch(tmp_path, "1.png", "._1.png", ".cache/2.png", "__MACOSX/3.png")
    assert [image.name for image in list_images(folder).images] == ["1.png"]


def test_the_fingerprint_tells_when_an_image_is_added_or_changes_its_length(tmp_path):
    before = list_images(touch(tmp_path, "1.png")).fingerprint()
    added = list_images(touch(tmp_path, "2.png")).fingerprint()
    (tmp_path / "1.png").write_bytes(b"longer than before")
    changed = list_images(tmp_path).fingerprint()
    assert len({before, added, changed}) == 3


def test_a_source_without_images_says_what_it_holds_and_what_is_accepted(tmp_path):
    touch(tmp_path, "a.txt", "b.txt", "c.csv")
    with pytest.raises(UserError, match=r"3 files \(\.txt x 2, \.csv x 1\); images end in .*\.png"):
        list_images(tmp_path)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(UserError, match=r"source=.*nowhere does not exist"):
        list_images(tmp_path / "nowhere")


def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path):
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar:
        tar.add(touch(tmp_path / "x", "1.png"), arcname="x")
    with pytest.raises(UserError, match="unpack it"):
        list_images(tmp_path / "all.tar.gz")


def test_a_truncated_archive_is_refused(tmp_path):
    archive = as_archive(touch(tmp_path / "all", *(f"{n}.png" for n in range(40))), "tar")
    archive.write_bytes(archive.read_bytes()[:10_000])
    with pytest.raises(UserError, match="cannot be read"):
        list_images(archive)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive_zip:
        archive_zip.writestr("1.png", b"1")
    (tmp_path / "all.zip").write_bytes((tmp_path / "all.zip").read_bytes()[:30])
    with pytest.raises(UserError, match="cannot be read"):
        list_images(tmp_path / "all.zip")
