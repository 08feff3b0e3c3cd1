"""An archive lists and reads like the folder that it was made from, whether or not it is unpacked first."""

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from harness.photographs import image_file

from lediflow.data.sources import SourceError, open_source

KINDS = ["tar", "gztar", "xztar", "bztar", "zip"]
FILES = {
    "b/2.png": image_file(2),
    "a/1.JPG": image_file(1, "JPEG"),
    "a/0.webp": image_file(0, "WEBP"),
    "a/" + "long" * 40 + ".png": image_file(3),
    "notes.txt": b"not an image",
    "__MACOSX/a/1.JPG": b"a resource fork",
    "a/._1.jpg": b"another",
}


def as_archive(folder: Path, kind: str) -> Path:
    return Path(shutil.make_archive(str(folder.parent / "archive"), kind, folder))


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_lists_and_reads_as_the_folder_it_was_made_of(write, find, kind):
    folder = write("all", FILES)
    found, expected = find(as_archive(folder, kind)), find(folder)
    assert [name.removeprefix("./") for name in found.names] == expected.names
    assert found.contents == [FILES[name] for name in expected.names]
    assert found.listing.labels == expected.listing.labels == [0, 0, 0, 1]
    assert found.listing.classes == ["a", "b"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_is_refused(write, find, kind):
    archive = as_archive(write("all", {f"{n}.png": image_file(n) for n in range(60)}), kind)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(SourceError, match=f"{archive.name} cannot be .*; copy it again"):
        find(archive)


@pytest.mark.parametrize("kind", ["tar", "gztar"])
@pytest.mark.parametrize("damage", [bytes(512), b"\xff" * 512])
def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(write, find, kind, damage):
    folder = write("all", {f"{n}.png": image_file(n) for n in range(6)})
    plain = as_archive(folder, "tar")
    content = bytearray(plain.read_bytes())
    with tarfile.open(plain) as tar:
        header = tar.getmembers()[3].offset
    content[header : header + 512] = damage
    plain.write_bytes(content)
    if kind == "gztar":
        packed = plain.with_suffix(".tar.gz")
        packed.write_bytes(gzip.compress(content))
    with pytest.raises(SourceError, match=f"no end mark after its last readable file, at byte {header}: "):
        find(packed if kind == "gztar" else plain)


@pytest.mark.parametrize("zeros", [512, 1024, 10240, 20480])
def test_a_tar_ends_with_zeros_however_many(write, find, tmp_path, zeros):
    with tarfile.open(as_archive(write("all", FILES), "tar")) as tar:
        last = tar.getmembers()[-1]
        end = last.offset_data + -(-last.size // 512) * 512
    whole = (tmp_path / "archive.tar").read_bytes()
    (tmp_path / "archive.tar").write_bytes(whole[:end] + bytes(zeros))
    assert len(find(tmp_path / "archive.tar").names) == 4


def test_a_file_of_another_kind_is_refused(write, find):
    folder = write("all", {"thesis.pdf": b"%PDF" * 1000})
    with pytest.raises(SourceError, match=r"thesis\.pdf cannot be read"):
        find(folder / "thesis.pdf")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_one_photograph_is_refused_with_its_folder(write, find, kind):
    folder = write("all", {f"me.{kind}": image_file(0, kind)})
    with pytest.raises(
        SourceError, match=rf"source=.*me\.{kind} is one photograph; give its folder: source={folder}$"
    ):
        find(folder / f"me.{kind}")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_that_was_streamed_or_has_a_comment_is_read(tmp_path, find, method):
    path = tmp_path / "all.zip"
    with path.open("wb") as file, zipfile.ZipFile(Unseekable(file), "w", method) as archive:
        archive.comment = b"from a phone"
        for number in range(3):
            archive.writestr(f"{number}.png", image_file(number))
    assert find(path).contents == [image_file(number) for number in range(3)]


class Unseekable:
    """A pipe, to which sizes and checksums cannot be written afterwards."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush


MSDOS, UNIX, NTFS, VFAT = 0, 3, 10, 14  # systems that a zip's members were written on


def zipped(path: Path, names: list[str], system: int) -> Path:
    """A zip of one photograph per name, as a program on this system writes it; folders are empty."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            member = zipfile.ZipInfo(name)
            member.create_system = system
            archive.writestr(member, b"" if name.endswith(("/", "\\")) else image_file(number))
    return path


@pytest.mark.parametrize("system", [MSDOS, NTFS, VFAT])
@pytest.mark.parametrize("folder", ["ant", "\u00e4ffin"])
def test_backslashes_of_windows_separate_the_folders_of_a_zip(tmp_path, find, system, folder):
    names = [f"set\\{folder}\\0.png", "set\\bee\\1.png", "set\\bee\\", "set/bee/3.png"]
    found = find(zipped(tmp_path / "all.zip", names, system))
    assert found.class_of == {f"set/{folder}/0.png": folder, "set/bee/1.png": "bee", "set/bee/3.png": "bee"}
    expected = {f"set/{folder}/0.png": 0, "set/bee/1.png": 1, "set/bee/3.png": 3}
    assert dict(zip(found.names, found.contents, strict=True)) == {
        name: image_file(number) for name, number in expected.items()
    }
    assert not found.listing.passed_over


def test_backslashes_outside_windows_belong_to_names_and_are_reported_without_classes(tmp_path, find):
    found = find(zipped(tmp_path / "all.zip", ["ant\\0.png", "bee\\1.png", "2.png"], UNIX))
    assert found.names == ["2.png", "ant\\0.png", "bee\\1.png"]
    (note,) = found.listing.class_notes
    assert note.startswith("no classes: no image has a label")
    assert (
        r"2 of 3 names contain backslashes, which do not separate folders here, the first is ant\0.png"
        in note
    )


def test_half_a_shift_jis_character_separates_no_folders(tmp_path, find, monkeypatch):
    encoded = lambda member: (member.filename.encode("cp437"), member.flag_bits)  # noqa: E731
    monkeypatch.setattr(zipfile.ZipInfo, "_encodeFilenameFlags", encoded)  # not UTF-8, as on an old Windows
    name = "\u8868.png".encode("shift-jis").decode("cp437")
    assert "\\" in name
    found = find(zipped(tmp_path / "all.zip", [name], MSDOS))
    assert found.names == [name]


def test_names_with_a_slash_and_with_a_backslash_are_the_same_name(tmp_path, find):
    with pytest.raises(SourceError, match=r"occur twice under one name \(a/0.png\)"):
        find(zipped(tmp_path / "all.zip", ["a\\0.png", "a/0.png"], MSDOS))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_in_a_zip_is_an_unreadable_image(tmp_path, find, method):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("0.png", image_file(0))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="damaged in the archive"):
        _ = find(path).contents


def test_a_member_by_an_uncommon_method_is_an_unreadable_image(tmp_path, find):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("0.png", image_file(0))
    with pytest.raises(OSError, match="uncommon zip method 14"):
        _ = find(tmp_path / "all.zip").contents


@pytest.mark.parametrize("kind", ["tar", "gztar"])
def test_another_archive_of_the_same_length_is_another_source(write, kind):
    identities = []
    for number in (1, 2):
        archive = as_archive(write("all", {"0.bmp": image_file(number, "BMP")}), kind)
        identities.append(open_source(archive).identity().record)
    assert identities[0] != identities[1]


def test_an_archive_is_unpacked_once_and_again_only_if_it_changes(write, tmp_path):
    folder, scratch = write("all", {"0.png": image_file(0)}), tmp_path / "scratch"

    def unpack(archive: Path) -> tuple[str, int]:
        open_source(archive).ready(scratch)
        (tar,) = scratch.iterdir()  # an outdated one is removed
        return tar.name, tar.stat().st_mtime_ns

    first, again = unpack(as_archive(folder, "gztar")), unpack(folder.parent / "archive.tar.gz")
    write("all", {"1.png": image_file(1)})
    assert first == again != unpack(as_archive(folder, "gztar"))


def test_progress_of_unpacking_ends_at_the_whole(write, tmp_path):
    archive = as_archive(write("all", {"0.bmp": bytes(3_000_000)}), "tar")
    packed = tmp_path / "all.tar.bz2"
    with tarfile.open(packed, "w:bz2") as tar:
        tar.add(archive)
    reports: list[tuple[int, int]] = []
    open_source(packed).ready(tmp_path / "scratch", lambda *report: reports.append(report))
    assert reports[-1][0] == reports[-1][1]
