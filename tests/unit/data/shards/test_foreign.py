"""Tars that another program wrote are read like the toolkit's own, and the other way round."""

import hashlib
import io
import json
import os
import tarfile
import zlib

import numpy as np
import pytest
import webdataset
from harness.tars import RANDOM, add, picture, tar_of
from PIL import Image

from lediflow.data.encode import EncodeConfig, encode
from lediflow.data.shards import foreign
from lediflow.data.shards.foreign import index_tars
from lediflow.data.shards.index import PARTS_NAME, ShardIndex
from lediflow.data.shards.reader import CorruptSampleError, ShardReader
from lediflow.errors import UserError


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
        np.testing.assert_array_equal(reader.stored(np.array([number]))[0], expected)
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


def test_read_only_tars_get_their_index_in_the_cache_folder(theirs, tmp_path_factory, monkeypatch):
    folder, _ = theirs
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(foreign.os, "access", lambda path, mode: False)  # root may write anywhere
    reader = ShardReader.open(folder)
    assert len(reader) == 10
    assert not (folder / "index.json").exists()
    assert ShardReader.open(folder).index.fingerprint == reader.index.fingerprint


def test_tars_of_img2dataset_are_read(tmp_path):
    """Its layout: 00000.tar with KEY.jpg, KEY.json, KEY.txt, and a parquet file next to the tar."""
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


def test_arrays_of_other_programs_are_read(tmp_path):
    arrays = [RANDOM.standard_normal((4, 8, 8)).astype(np.float16) for _ in range(5)]
    buffers = [io.BytesIO() for _ in arrays]
    for buffer, array in zip(buffers, arrays, strict=True):
        np.save(buffer, array)
    webdataset_tars(tmp_path, [{"__key__": str(n), "npy": b.getvalue()} for n, b in enumerate(buffers)])
    reader = ShardReader.open(tmp_path)
    np.testing.assert_array_equal(reader.signals(np.arange(5)).mean, np.stack(arrays).astype(np.float32))
    assert reader.index.contents.classes is None


def test_grey_pictures_among_coloured_ones_become_coloured(tmp_path):
    tar_of(tmp_path / "a.tar", {"0.png": picture(), "1.png": picture(mode="L")})
    signals = ShardReader.open(tmp_path).signals(np.arange(2)).mean
    assert signals.shape == (2, 3, 16, 16)
    np.testing.assert_array_equal(signals[1, 0], signals[1, 2])


@pytest.mark.parametrize("files", [{"0.png": picture(16), "1.png": picture(8)}])
def test_pictures_of_several_sizes_are_refused_with_a_remedy(tmp_path, files):
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
    np.testing.assert_array_equal(reader.stored(np.array([2]))[0], good)
    with pytest.raises(CorruptSampleError, match=r"sample 1 of .*a\.tar is corrupt: it could not be read"):
        reader.stored(np.arange(3))


def test_sixteen_bits_of_grey_become_eight_like_in_prepare(tmp_path):
    values = RANDOM.integers(0, 65536, (16, 16), dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    tar_of(tmp_path / "a.tar", {"0.png": buffer.getvalue()})
    np.testing.assert_array_equal(ShardReader.open(tmp_path).stored(np.array([0]))[0, 0], values >> 8)


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


def test_a_tar_added_later_is_indexed_too(theirs):
    folder, _ = theirs
    assert len(ShardReader.open(folder)) == 10
    tar_of(folder / "zz.tar", {"new.png": picture(), "new.cls": b"1"})
    assert len(ShardReader.open(folder)) == 11


def test_tars_without_samples_say_what_is_looked_for(tmp_path):
    tar_of(tmp_path / "a.tar", {"0.txt": b"words"})
    with pytest.raises(
        UserError,
        match=r"holds no samples in its tars \(1\): found 1 file \(1 \.txt\): 0\.txt; samples end in .*npy",
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


def test_an_unfinished_set_is_not_read_as_foreign_tars(tmp_path):
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
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), reader.stored(np.array([number]))[0])
