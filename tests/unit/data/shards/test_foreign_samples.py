"""Which members of another program's tars are samples, which labels they have, and when an index is made again."""

import io
import os

import numpy as np
import pytest
from harness.picture_files import GREY, chunk, png
from harness.tars import RANDOM, picture, tar_of
from PIL import Image

from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.shards import foreign
from lediflow.data.shards.foreign import index_tars
from lediflow.data.shards.reader import ShardReader
from lediflow.errors import UserError


def keys(folder) -> list[str]:
    reader = ShardReader.open(folder)
    return reader.keys(np.arange(len(reader)))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.1.png", "a.2.png"], ["a.1", "a.2"]),
        (["a.png", "a.1.png", "b.png"], ["a", "a.1", "b"]),
        (["IMG.2024.01.31.png", "IMG.2024.02.01.png"], ["IMG.2024.01.31", "IMG.2024.02.01"]),
        (["0.left.png", "0.right.png"], ["0.left", "0.right"]),
        (["a.PNG", "b.JPEG", "c.jfif"], ["a", "b", "c"]),
    ],
)
def test_every_picture_is_a_sample_with_any_dots_in_its_name(tmp_path, names, expected):
    tar_of(tmp_path / "a.tar", {name: picture(kind="png") for name in names})
    assert keys(tmp_path) == expected


def test_a_field_that_every_sample_has_is_not_a_sample_and_is_reported(tmp_path, caplog):
    names = ["a.png", "a.seg.png", "a.json", "b.seg.png", "b.png", "b.emb.npy", "c.heic"]
    tar_of(tmp_path / "a.tar", {name: picture() for name in names})
    assert keys(tmp_path) == ["a", "b"]
    assert "4 files (2 .png, 1 .npy, 1 .heic): a.seg.png, b.emb.npy, b.seg.png, ..." in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "a.edited.png", "b.png"], r"a\.edited\.png may be a picture of its own .* 1 of 2 samples"),
        (["a.png", "a.jpg"], r"a\.png and a\.jpg are two pictures under one name"),
    ],
)
def test_a_tar_with_ambiguous_samples_is_refused(tmp_path, names, message):
    tar_of(tmp_path / "a.tar", {name: picture() for name in names})
    with pytest.raises(UserError, match=rf"a\.tar: {message}"):
        ShardReader.open(tmp_path)


def test_samples_with_dots_are_encoded_with_their_labels_and_metadata(tmp_path):
    members = {"a.1.png": picture(), "a.1.json": b'{"label": 1, "note": "x"}'}
    tar_of(tmp_path / "a.tar", members | {"a.2.png": picture(), "a.2.json": b'{"label": 0, "note": "y"}'})
    latents = ShardReader(encode(EncodeConfig(source=str(tmp_path), output=str(tmp_path / "latents"))).index)
    assert latents.keys(np.arange(2)) == ["a.1", "a.2"]
    assert [(about["label"], about["note"]) for about in latents.metadata(0)] == [(1, "x"), (0, "y")]


def test_a_lost_class_and_archives_that_are_not_read_are_named(tmp_path, caplog):
    tar_of(tmp_path / "a.tar", {"0.png": picture(), "0.cls": b"1", "1.png": picture()})
    (tmp_path / "b.tar.gz").write_bytes(b"")
    (tmp_path / "._a.tar").write_bytes(b"a fork")
    assert ShardReader.open(tmp_path).index.contents.classes is None
    assert "no classes: 1 of 2 images has no label, the first is a.tar/1.png" in caplog.text
    assert "1 file (1 .gz): b.tar.gz" in caplog.text


def written_at(path, seconds):
    os.utime(path, (seconds, seconds))


def test_a_tar_that_was_edited_in_place_is_indexed_again_and_a_copy_has_the_same_index(tmp_path, caplog):
    caplog.set_level("INFO")
    tar_of(tmp_path / "a.tar", {"0.png": picture()})
    written_at(tmp_path / "a.tar", 1000)
    first = ShardReader.open(tmp_path).index.fingerprint
    written_at(tmp_path / "a.tar", 2000)  # as after a copy
    assert ShardReader.open(tmp_path).index.fingerprint == first
    assert "they changed since they were indexed, so each is read again" in caplog.text
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[600] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    assert ShardReader.open(tmp_path).index.fingerprint != first


@pytest.mark.parametrize(("tar_seconds", "scans"), [(1000, 0), (3000, 1)])
def test_an_index_of_an_earlier_version_is_used_unless_a_tar_is_newer(
    tmp_path, monkeypatch, tar_seconds, scans
):
    tar_of(tmp_path / "a.tar", {"0.png": picture()})
    ShardReader.open(tmp_path)
    (tmp_path / foreign.TIMES_NAME).unlink()
    written_at(tmp_path / "index.json", 2000)
    written_at(tmp_path / "a.tar", tar_seconds)
    scanned = []
    scan_tar = foreign.scan_tar
    monkeypatch.setattr(foreign, "scan_tar", lambda path: scanned.append(path) or scan_tar(path))
    ShardReader.open(tmp_path)
    assert len(scanned) == scans


def test_a_read_only_copy_is_indexed_in_the_cache_folder(tmp_path, tmp_path_factory, monkeypatch):
    tar_of(tmp_path / "a.tar", {"0.png": picture()})
    first = ShardReader.open(tmp_path).index.fingerprint
    written_at(tmp_path / "a.tar", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(foreign.os, "access", lambda path, mode: False)
    before = (tmp_path / foreign.TIMES_NAME).read_bytes()
    assert ShardReader.open(tmp_path).index.fingerprint == first
    assert (tmp_path / foreign.TIMES_NAME).read_bytes() == before
    monkeypatch.setattr(foreign, "scan_tar", lambda path: pytest.fail("read again"))
    assert ShardReader.open(tmp_path).index.fingerprint == first


def test_pictures_are_selected_like_in_prepare(tmp_path):
    levels = RANDOM.integers(0, 256, (16, 16), dtype=np.uint8)
    upside_down, clear = Image.Exif(), Image.fromarray(levels)
    upside_down[0x0112] = 3
    clear.putalpha(Image.new("L", (16, 16), 0))
    files = {}
    for name, image, options in (
        ("0.png", Image.fromarray(levels), {}),
        ("1.png", Image.fromarray(levels[::-1, ::-1]), {"exif": upside_down}),
        ("2.png", Image.fromarray(levels.astype(np.uint16) * 257), {}),
        ("3.png", clear, {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, "png", **options)
        files[name] = buffer.getvalue()
    odd = chunk(b"tEXt", b"a text\0whose checksum is wrong", check=0)
    files["4.png"] = png([row.tobytes() for row in levels], 16, 8, GREY, odd)
    tar_of(tmp_path / "a.tar", files)
    first, turned, wide, transparent, described = ShardReader.open(tmp_path).stored(np.arange(5)).numpy()
    np.testing.assert_array_equal(first[0], levels)
    np.testing.assert_array_equal(turned, first)
    np.testing.assert_array_equal(wide, first)
    np.testing.assert_array_equal(described, first)
    assert (transparent == 255).all()


def test_folders_in_tars_that_are_not_classes_and_tars_in_subfolders_are_reported(tmp_path, caplog):
    for place in ("a.tar", "more/b.tar"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        tar_of(tmp_path / place, {"cat/1.png": picture(), "dog/2.png": picture()})
    assert index_tars(tmp_path).contents.classes is None
    assert "the 2 folders inside the tars are no classes" in caplog.text
    assert "1 file (1 .tar): more/b.tar" in caplog.text
