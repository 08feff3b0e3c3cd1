"""Tars that others wrote are read like ours, and ours like theirs."""

import hashlib
import io
import json
import os
import tarfile
import zlib

import numpy as np
import pytest
import webdataset
from harness.picture_files import GREY, chunk, png
from PIL import Image

from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.shards import foreign
from lediflow.data.shards.foreign import index_tars
from lediflow.data.shards.index import PARTS_NAME, ShardIndex
from lediflow.data.shards.reader import CorruptSampleError, ShardReader
from lediflow.errors import UserError

RANDOM = np.random.default_rng(0)


def picture(side=16, mode="RGB", kind="png") -> bytes:
    channels = (3,) if mode == "RGB" else ()
    pixels = RANDOM.integers(0, 256, (side, side, *channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind)
    return buffer.getvalue()


def webdataset_tars(folder, samples, per_tar=4):
    """Written by webdataset's own writer."""
    pattern = f"{folder}/train-%03d.tar"
    with webdataset.ShardWriter(pattern, maxcount=per_tar, encoder=False, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)


@pytest.fixture
def theirs(tmp_path):
    """Ten pictures with classes and captions in three tars."""
    samples = [
        {"__key__": f"some/where/{n:04d}", "png": picture(), "cls": str(n % 3).encode(), "txt": b"a caption"}
        for n in range(10)
    ]
    webdataset_tars(tmp_path, samples)
    return tmp_path, samples


def test_tars_of_webdataset_are_read_in_their_order(theirs):
    folder, samples = theirs
    reader = ShardReader.open(folder)
    assert reader.index.shard_sizes.tolist() == [4, 4, 2]
    for number, sample in enumerate(samples):
        assert reader.payload(number) == sample["png"]
        expected = np.asarray(Image.open(io.BytesIO(sample["png"]))).transpose(2, 0, 1)
        np.testing.assert_array_equal(reader.array(number), expected)
    assert reader.labels(np.arange(10)).tolist() == [n % 3 for n in range(10)]
    assert reader.index.contents.classes == ["0", "1", "2"]


def test_the_index_holds_what_a_look_at_the_bytes_gives(theirs):
    folder, samples = theirs
    index = index_tars(folder)
    for shard in index.shards:
        content = (folder / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert index.table["crc32"].tolist() == [zlib.crc32(sample["png"]) for sample in samples]


def test_the_index_is_made_once(theirs, monkeypatch):
    folder, _ = theirs
    first = ShardReader.open(folder)
    monkeypatch.setattr(foreign, "scan_tar", lambda path: pytest.fail("read again"))
    assert ShardReader.open(folder).index.fingerprint == first.index.fingerprint


def test_tars_where_nobody_may_write_get_their_index_in_the_cache_folder(
    theirs, tmp_path_factory, monkeypatch
):
    folder, _ = theirs
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(foreign.os, "access", lambda path, mode: False)  # root may write anywhere
    reader = ShardReader.open(folder)
    assert len(reader) == 10
    assert not (folder / "index.json").exists()
    assert ShardReader.open(folder).index.fingerprint == reader.index.fingerprint


def test_tars_of_img2dataset_are_read(tmp_path):
    """Its layout: 00000.tar with KEY.jpg, KEY.json, KEY.txt, and a parquet file beside the tar."""
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number in range(3):
            about = json.dumps(
                {"caption": "x", "url": "http://x/y.jpg", "label": ["cat", "dog", "cat"][number]}
            )
            for extension, content in (
                ("jpg", picture(kind="jpeg")),
                ("json", about.encode()),
                ("txt", b"x"),
            ):
                add(tar, f"{number:09d}.{extension}", content)
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    reader = ShardReader.open(tmp_path)
    assert reader.index.contents.classes == ["cat", "dog"]
    assert reader.labels(np.arange(3)).tolist() == [0, 1, 0]
    assert reader.signals(np.arange(3)).mean.shape == (3, 3, 16, 16)


def test_arrays_of_others_are_read(tmp_path):
    arrays = [RANDOM.standard_normal((4, 8, 8)).astype(np.float16) for _ in range(5)]
    buffers = [io.BytesIO() for _ in arrays]
    for buffer, array in zip(buffers, arrays, strict=True):
        np.save(buffer, array)
    webdataset_tars(tmp_path, [{"__key__": str(n), "npy": b.getvalue()} for n, b in enumerate(buffers)])
    reader = ShardReader.open(tmp_path)
    np.testing.assert_array_equal(reader.signals(np.arange(5)).mean, np.stack(arrays).astype(np.float32))
    assert reader.index.contents.classes is None


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def tar_of(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            add(tar, name, content)


def test_grey_pictures_among_coloured_ones_become_coloured(tmp_path):
    tar_of(tmp_path / "a.tar", {"0.png": picture(), "1.png": picture(mode="L")})
    signals = ShardReader.open(tmp_path).signals(np.arange(2)).mean
    assert signals.shape == (2, 3, 16, 16)
    np.testing.assert_array_equal(signals[1, 0], signals[1, 2])


@pytest.mark.parametrize("files", [{"0.png": picture(16), "1.png": picture(8)}])
def test_pictures_of_several_sizes_are_refused_with_the_way_out(tmp_path, files):
    tar_of(tmp_path / "a.tar", files)
    with pytest.raises(
        UserError, match=r"not squares of one size .*3x16x16 png of uint8 \(1\).*lediflow.prepare source="
    ):
        ShardReader.open(tmp_path)


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


ODD_ARRAYS = {
    "Fortran order": [np.asfortranarray(RANDOM.random((4, 8, 8), dtype=np.float32))],
    "big endian": [RANDOM.random((4, 8, 8)).astype(">f4")],
    "doubles": [RANDOM.random((4, 8, 8))],
    "two axes": [RANDOM.random((8, 8), dtype=np.float32)],
    "four axes": [RANDOM.random((1, 4, 8, 8), dtype=np.float32)],
    "several widths": [RANDOM.random((channels, 8, 8), dtype=np.float32) for channels in (1, 3)],
}


@pytest.mark.parametrize("kind", ODD_ARRAYS)
def test_arrays_that_would_be_read_as_other_numbers_are_refused(tmp_path, kind):
    tar_of(tmp_path / "a.tar", {f"{n}.npy": npy(array) for n, array in enumerate(ODD_ARRAYS[kind])})
    with pytest.raises(UserError, match=r"not squares of one size and type .*C order, little endian"):
        ShardReader.open(tmp_path)


def test_arrays_among_pictures_are_refused(tmp_path):
    array = RANDOM.integers(0, 256, (3, 16, 16), dtype=np.uint8)
    tar_of(tmp_path / "a.tar", {"0.png": picture(), "1.npy": npy(array)})
    with pytest.raises(UserError, match="not squares of one size and type"):
        ShardReader.open(tmp_path)


def test_an_array_that_was_broken_before_it_was_indexed_is_a_corrupt_sample(tmp_path):
    good = RANDOM.random((4, 8, 8), dtype=np.float32)
    tar_of(tmp_path / "a.tar", {"0.npy": npy(good), "1.npy": npy(good)[:700], "2.npy": npy(good)})
    reader = ShardReader.open(tmp_path)
    np.testing.assert_array_equal(reader.array(2), good)
    with pytest.raises(CorruptSampleError, match=r"sample 1 of .*a\.tar is corrupt: it could not be read"):
        reader.stored(np.arange(3))


def test_sixteen_bits_of_grey_become_the_eight_that_prepare_makes_of_them(tmp_path):
    values = RANDOM.integers(0, 65536, (16, 16), dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    tar_of(tmp_path / "a.tar", {"0.png": buffer.getvalue()})
    np.testing.assert_array_equal(ShardReader.open(tmp_path).array(0)[0], values >> 8)


def members_of(*names):
    about = (json.dumps({"label": number}).encode() for number in range(5, 99))
    return {name: picture() if name.endswith("png") else next(about) for name in names}


@pytest.mark.parametrize(
    "names",
    [
        ("miss.json", "k1.json", "k1.png", "k2.json", "k2.png"),
        ("k1.png", "k1.box.json", "k1.json", "k2.png", "k2.json"),
    ],
)
def test_metadata_belong_to_the_sample_that_shares_their_name(tmp_path, names):
    members = members_of(*names)
    tar_of(tmp_path / "a.tar", members)
    reader = ShardReader.open(tmp_path)
    expected = [json.loads(members[f"{key}.json"])["label"] for key in ("k1", "k2")]
    assert reader.keys(np.arange(2)) == ["k1", "k2"]
    assert (
        [about["label"] for about in reader.metadata(0)] == reader.labels(np.arange(2)).tolist() == expected
    )


def test_samples_without_metadata_are_encoded_under_their_own_names(tmp_path):
    tar_of(
        tmp_path / "a.tar",
        {
            "cats/cat_1.png": picture(),
            "cats/cat_1.cls": b"3",
            "cats/cat_2.png": picture(),
            "cats/cat_2.cls": b"0",
        },
    )
    index = encode(EncodeConfig(source=str(tmp_path), output=str(tmp_path / "latents"))).index
    latents, images = ShardReader(index), ShardReader.open(tmp_path)
    assert latents.keys(np.arange(2)) == images.keys(np.arange(2)) == ["cats/cat_1", "cats/cat_2"]
    assert [about["label"] for about in latents.metadata(0)] == [3, 0]
    np.testing.assert_array_equal(latents.stored(np.arange(2)), images.stored(np.arange(2)))
    with tarfile.open(tmp_path / "latents" / "latents-000000.tar") as tar:
        assert "cats/cat_1.npy" in tar.getnames()


@pytest.mark.parametrize("damage", ["cut between files", "zeroed header"])
def test_a_tar_without_its_end_mark_is_not_taken_for_a_smaller_one(tmp_path, damage):
    tar_of(tmp_path / "a.tar", {f"{n}.png": picture() for n in range(6)})
    with tarfile.open(tmp_path / "a.tar") as tar:
        third = tar.getmembers()[2].offset
    if damage == "cut between files":
        os.truncate(tmp_path / "a.tar", third)
    else:
        with (tmp_path / "a.tar").open("r+b") as file:
            file.seek(third)
            file.write(bytes(512))
    with pytest.raises(UserError, match=rf"a.tar cannot be read .*no end mark .* at byte {third}"):
        ShardReader.open(tmp_path)


def test_a_tar_that_comes_later_is_indexed_too(theirs):
    folder, _ = theirs
    assert len(ShardReader.open(folder)) == 10
    tar_of(folder / "zz.tar", {"new.png": picture(), "new.cls": b"1"})
    assert len(ShardReader.open(folder)) == 11


def test_tars_without_samples_say_what_is_looked_for(tmp_path):
    tar_of(tmp_path / "a.tar", {"0.txt": b"words"})
    with pytest.raises(
        UserError, match=r"hold no samples: found 1 file \(1 \.txt\): 0\.txt; samples end in .*npy"
    ):
        ShardReader.open(tmp_path)


def test_a_compressed_or_truncated_tar_is_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        add(tar, "0.png", picture())
    with pytest.raises(UserError, match=r"a.tar cannot be read as an uncompressed tar"):
        ShardReader.open(tmp_path)
    tar_of(tmp_path / "a.tar", {"0.png": picture(), "1.png": picture()})
    os.truncate(tmp_path / "a.tar", 1500)
    with pytest.raises(UserError, match=r"a.tar cannot be read as an uncompressed tar .*copy it again"):
        ShardReader.open(tmp_path)


def test_a_set_under_construction_is_not_taken_for_tars_of_others(tmp_path):
    tar_of(tmp_path / "images-000000.tar", {"0.png": picture()})
    (tmp_path / PARTS_NAME).mkdir()
    with pytest.raises(UserError, match=r"are not finished; repeat the command that makes them"):
        ShardReader.open(tmp_path)


def test_our_own_tars_without_their_index_are_read_again(shards, reader, tmp_path):
    for path in shards.glob("*.tar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    again = ShardReader.open(tmp_path)
    np.testing.assert_array_equal(again.labels(np.arange(50)), reader.labels(np.arange(50)))
    np.testing.assert_array_equal(again.signals(np.arange(50)).mean, reader.signals(np.arange(50)).mean)
    for column in ("offset", "length", "crc32"):
        np.testing.assert_array_equal(again.index.table[column], reader.index.table[column])


def test_ours_open_with_three_lines_of_webdataset(shards, reader):
    urls = sorted(map(str, shards.glob("*.tar")))
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png", "json")
    found = [(pixels, about) for pixels, about in dataset]
    assert len(found) == len(ShardIndex.load(shards)) == 50
    for number, (pixels, _) in enumerate(found):
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), reader.array(number))


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
def test_every_picture_is_a_sample_whatever_dots_its_name_has(tmp_path, names, expected):
    tar_of(tmp_path / "a.tar", {name: picture(kind="png") for name in names})
    assert keys(tmp_path) == expected


def test_a_field_that_every_sample_has_is_no_picture_of_its_own_and_is_named(tmp_path, caplog):
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
def test_where_it_is_unclear_which_pictures_are_samples_the_tar_is_refused(tmp_path, names, message):
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
def test_an_index_of_an_earlier_version_is_taken_unless_a_tar_is_newer(
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


def test_a_copy_where_nobody_may_write_is_indexed_in_the_cache_folder(
    tmp_path, tmp_path_factory, monkeypatch
):
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


def test_pictures_are_taken_as_prepare_takes_them(tmp_path):
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


def test_folders_in_tars_that_are_no_classes_and_tars_in_subfolders_are_named(tmp_path, caplog):
    for place in ("a.tar", "more/b.tar"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        with tarfile.open(tmp_path / place, "w") as tar:
            for name in ("cat/1.png", "dog/2.png"):
                content = picture()
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert index_tars(tmp_path).contents.classes is None
    assert "the 2 folders inside the tars are no classes" in caplog.text
    assert "1 file (1 .tar): more/b.tar" in caplog.text
