import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from harness.commands import succeed
from harness.photographs import image_file
from PIL import Image

from lediflow.data.prepare import PrepareConfig, prepare
from lediflow.data.shards.index import ShardIndex, damaged_shards, verified
from lediflow.data.shards.reader import ShardReader
from lediflow.data.sources import SourceError
from lediflow.errors import UserError
from lediflow.records import RecordError


def config(source: Path, output: Path, **changes) -> PrepareConfig:
    options = {"size": 16, "shard_samples": 8, "workers": 1} | changes
    return PrepareConfig(source=str(source), output=str(output), **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class StoppedError(Exception):
    pass


def stop_after(images: int):
    def progress(done: int, total: int) -> None:
        if done >= images:
            raise StoppedError

    return lambda title, *, unit="images": progress if title == "prepare" else lambda done, total: None


def test_plain_webdataset_reads_the_shards(pictures, shards):
    urls = sorted(map(str, shards.glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 50
    for sample in samples:
        original = np.asarray(Image.open(pictures / sample["json"]["source"]))
        np.testing.assert_array_equal(sample["png"], original)
        assert sample["json"]["class"] == Path(sample["json"]["source"]).parent.name


def test_every_image_becomes_one_sample_under_its_number_in_the_listing(pictures, reader):
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    sources = [about["source"] for shard in range(7) for about in reader.metadata(shard)]
    assert [names[int(key)] for key in reader.keys(np.arange(50))] == sources
    assert sorted(sources) == names


def test_the_same_photograph_has_the_same_key_at_another_size(pictures, reader, tmp_path):
    smaller = prepare(config(pictures, tmp_path / "small", size=8)).index
    np.testing.assert_array_equal(smaller.table["key"], reader.index.table["key"])


def test_a_shard_holds_a_mix_of_classes_though_the_listing_is_sorted_by_class(reader):
    labels, shard = reader.index.table["label"], reader.index.shard_of(np.arange(50))
    assert all(set(labels[shard == number]) == {0, 1} for number in range(6))


@pytest.mark.parametrize("images_done", [8, 24, 50])
def test_an_interrupted_and_repeated_command_gives_the_same_bytes(pictures, shards, tmp_path, images_done):
    with pytest.raises(StoppedError):
        prepare(config(pictures, tmp_path), stop_after(images_done))
    finished_before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    prepare(config(pictures, tmp_path))
    assert files(tmp_path) == files(shards)
    assert finished_before == {path: path.stat().st_mtime_ns for path in finished_before}  # not made again


def test_a_shard_lost_between_interruption_and_second_run_is_made_again(pictures, shards, tmp_path):
    with pytest.raises(StoppedError):
        prepare(config(pictures, tmp_path), stop_after(24))
    (tmp_path / "images-000001.tar").write_bytes(b"half")
    prepare(config(pictures, tmp_path))
    assert files(tmp_path) == files(shards)


@pytest.mark.processes
def test_the_number_of_processes_does_not_change_the_result(pictures, shards, tmp_path):
    prepare(config(pictures, tmp_path, workers=2))
    assert files(tmp_path) == files(shards)


def test_a_finished_set_is_reused(pictures, shards):
    before = {path: path.stat().st_mtime_ns for path in shards.iterdir()}
    assert prepare(config(pictures, shards)).is_reused
    assert before == {path: path.stat().st_mtime_ns for path in shards.iterdir()}


def test_another_command_into_the_same_folder_is_refused(pictures, shards, tmp_path):
    with pytest.raises(UserError, match=r"another command \(size: 16 then, 12 now\)"):
        prepare(config(pictures, shards, size=12))
    fewer = shutil.copytree(pictures, tmp_path / pictures.name)
    next(path for path in fewer.rglob("*.*") if path.is_file()).unlink()
    with pytest.raises(
        UserError, match=r"was made from other files \(images: \d+ then, \d+ now\): files of the"
    ):
        prepare(config(fewer, shards))


def test_a_changed_source_is_noticed(pictures, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number, path in enumerate(sorted(pictures.rglob("*.png"))[:3]):
        (source / f"{number}.png").write_bytes(path.read_bytes())
    prepare(config(source, tmp_path / "out"))
    (source / "2.png").unlink()
    with pytest.raises(UserError, match="images: 3 then, 2 now"):
        prepare(config(source, tmp_path / "out"))


def test_a_folder_with_other_files_is_not_written_to(pictures, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"not empty \(found thesis.tex\)"):
        prepare(config(pictures, tmp_path))


def test_unusable_files_are_counted_and_named(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name, side in (("big.png", 20), ("small.png", 9), ("twin.png", 20)):
        Image.new("RGB", (side, side), "red").save(source / name)
    (source / "broken.jpg").write_bytes(b"not an image")
    (source / "gone.png").symlink_to(source / "nowhere.png")
    made = prepare(config(source, tmp_path / "out"))
    assert len(made.index) == 1
    assert made.rejected == {"unreadable": 2, "too small": 1, "duplicate": 1}
    rows = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    reasons = {row["image"]: row["reason"] for row in rows}
    assert reasons["twin.png"] == "duplicate: of big.png"
    assert reasons["small.png"] == "too small: 9x9, need 16x16"


def test_when_nothing_can_be_used_the_first_reason_is_reported(pictures, tmp_path):
    with pytest.raises(UserError, match=r"none of the 50 images .* too small: 16x16, need 99x99"):
        prepare(config(pictures, tmp_path, size=99))
    prepare(config(pictures, tmp_path))  # and the folder is free for the corrected command


def test_grey_shards_have_one_channel_and_their_lightness(pictures, tmp_path):
    reader = ShardReader(prepare(config(pictures, tmp_path, mode="grey")).index)
    source = pictures / reader.metadata(0)[0]["source"]
    np.testing.assert_array_equal(
        reader.stored(np.array([0]))[0, 0], np.asarray(Image.open(source).convert("L"))
    )


@pytest.mark.parametrize(("name", "value"), [("mode", "cmyk"), ("format", "bmp")])
def test_an_unknown_choice_is_refused_with_the_known_ones(pictures, tmp_path, name, value):
    with pytest.raises(UserError, match=f"{name}={value} is not known; choose one of"):
        prepare(config(pictures, tmp_path, **{name: value}))


@pytest.mark.parametrize(
    ("name", "value", "least"), [("size", 0, 1), ("shard_samples", 0, 1), ("workers", -2, 0)]
)
def test_a_number_out_of_range_is_refused_with_the_smallest_allowed_value(
    pictures, tmp_path, name, value, least
):
    with pytest.raises(UserError, match=f"^{name}={value} must be at least {least}$"):
        prepare(config(pictures, tmp_path, **{name: value}))


def test_a_photograph_that_cannot_be_converted_is_skipped_and_named(tmp_path):
    (tmp_path / "source").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "source/plain.png")
    Image.new("F", (16, 16)).save(tmp_path / "source/float.tif")
    Image.new("LAB", (16, 16)).save(tmp_path / "source/lab.tif")
    made = prepare(config(tmp_path / "source", tmp_path / "out", mode="grey"))
    assert (len(made.index), made.rejected) == (2, {"unreadable": 1})


def test_grey_webp_does_not_exist(pictures, tmp_path):
    with pytest.raises(UserError, match="choose format=png, or mode=rgb"):
        prepare(config(pictures, tmp_path, mode="grey", format="webp"))


def test_a_full_disk_leaves_no_partial_file_and_says_what_to_do(pictures, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        prepare(config(pictures, tmp_path / "out"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_an_output_below_a_file_is_refused(pictures, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*; a file exists where a folder is needed"):
        prepare(config(pictures, tmp_path / "file/out"))


def test_a_flipped_bit_in_a_shard_is_found_by_its_hash(pictures, tmp_path):
    index = prepare(config(pictures, tmp_path)).index
    path = tmp_path / "images-000002.tar"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert damaged_shards(index) == ["images-000002.tar"]
    with pytest.raises(
        UserError, match=r"1 of the 7 shards of .* differ from what was written: images-000002.tar; copy"
    ):
        verified(index)


def test_an_intact_set_is_verified_in_a_sentence(reader):
    assert verified(reader.index) == "verified: all 7 shards have the SHA-256 that index.json gives"


def about_every_sample(folder: Path) -> list[dict]:
    reader = ShardReader.open(folder)
    return [about for shard in range(len(reader.index.shards)) for about in reader.metadata(shard)]


def test_a_sample_records_its_source_class_and_both_sizes(tmp_path):
    source = tmp_path / "source"
    for name, size in (("owl/a.png", (40, 20)), ("ant/b.png", (16, 30))):
        (source / name).parent.mkdir(parents=True)
        Image.new("RGB", size, "red" if name.startswith("owl") else "blue").save(source / name)
    prepare(config(source, tmp_path / "out"))
    assert sorted(about_every_sample(tmp_path / "out"), key=lambda about: about["label"]) == [
        {"source": "ant/b.png", "size": 16, "width": 16, "height": 30, "label": 0, "class": "ant"},
        {"source": "owl/a.png", "size": 16, "width": 40, "height": 20, "label": 1, "class": "owl"},
    ]


def test_a_class_whose_images_were_all_skipped_is_named(tmp_path):
    for name, side in (("ant/a.png", 16), ("bee/a.png", 15), ("bee/b.png", 8), ("cat/a.png", 17)):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side), side).save(tmp_path / "source" / name)
    for _ in ("made", "already made"):
        made = prepare(config(tmp_path / "source", tmp_path / "out"))
        assert made.index.contents.classes == ["ant", "bee", "cat"]
        assert made.notes[-1].startswith(
            "classes whose images were all skipped: 1 (bee); they keep their numbers"
        )


def test_a_set_prepared_from_a_prepared_set_has_its_classes_by_name(shards, tmp_path):
    first = ShardIndex.load(shards)
    again = prepare(config(shards, tmp_path / "again", size=8))
    assert again.index.contents.classes == first.contents.classes
    assert sorted(again.index.table["label"]) == sorted(first.table["label"])
    assert again.notes[0].startswith(f"{len(first.contents.classes)} classes ({first.contents.classes[0]}, ")


@pytest.mark.parametrize("index", ["{}", '{"__kind__": "wids-shard-index-v1"}'])
def test_the_index_of_another_program_names_no_classes(shards, tmp_path, index):
    foreign = tmp_path / "foreign"
    shutil.copytree(shards, foreign)
    (foreign / "index.json").write_text(index)
    made = prepare(config(foreign, tmp_path / "again", size=8))
    assert made.index.contents.classes == [
        str(n) for n in range(len(ShardIndex.load(shards).contents.classes))
    ]


def two_sets_of_other_classes(folder):
    """Prepared sets whose labels are 0 and 1, and mean other classes."""
    for place, names in enumerate((("ant", "bee"), ("cat", "dog"))):
        for number, name in enumerate(names):
            path = folder / f"photographs{place}" / name / "0.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(image_file(10 * place + number))
        prepare(config(folder / f"photographs{place}", folder / f"sets/{place}", size=8))
    return folder / "sets"


def test_prepared_sets_that_number_other_classes_are_not_merged(tmp_path):
    sets = two_sets_of_other_classes(tmp_path)
    with pytest.raises(SourceError, match=r"number different classes \(ant, bee; cat, dog\).*one by one"):
        prepare(config(sets, tmp_path / "merged", size=8))
    tar = next((sets / "1").glob("*.tar"))
    assert prepare(config(tar, tmp_path / "one", size=8)).index.contents.classes == ["cat", "dog"]


def test_a_damaged_index_of_a_prepared_set_is_refused(shards, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(shards, damaged)
    index = damaged / "index.json"
    index.write_text(index.read_text()[:100])  # as an interrupted copy leaves it: its classes have no names
    with pytest.raises(RecordError, match=r"index.json is incomplete, or not JSON.*copy the folder again"):
        prepare(config(damaged, tmp_path / "again", size=8))
    index.unlink()
    with pytest.raises(RecordError, match=r"index.json cannot be read.*copy the folder again"):
        prepare(config(damaged, tmp_path / "again", size=8))


def test_without_classes_the_label_is_null(pictures, tmp_path):
    prepare(config(pictures / "bar", tmp_path))
    assert {about["label"] for about in about_every_sample(tmp_path)} == {None}


def as_compressed_tar(pictures: Path, folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / "pictures"), "gztar", pictures))


def test_every_form_of_a_source_gives_the_same_pictures(pictures, shards, tmp_path):
    archive = as_compressed_tar(pictures, tmp_path)
    prepare(config(archive, tmp_path / "out"))
    for name in (path.name for path in shards.glob("*.tar")):
        pairs = zip(tar_members(shards / name), tar_members(tmp_path / "out" / name), strict=True)
        for (member, expected), (same_member, found) in pairs:
            assert member == same_member
            assert expected == found or member.endswith(".json")  # ./ before the names of sources


def tar_members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def test_an_interrupted_preparation_keeps_what_it_unpacked_and_ends_the_same(pictures, tmp_path):
    archive, output = as_compressed_tar(pictures, tmp_path), tmp_path / "out"
    with pytest.raises(StoppedError):
        prepare(config(archive, output), stop_after(24))
    (unpacked,) = (output / ".parts").glob("unpacked-*.tar")
    made = unpacked.stat().st_mtime_ns

    def look(title: str, *, unit: str = "images"):
        if title == "prepare":
            assert unpacked.stat().st_mtime_ns == made
        return lambda done, total: None

    prepare(config(archive, output), look)
    prepare(config(archive, tmp_path / "at once"))
    assert files(output) == files(tmp_path / "at once")
    assert not (output / ".parts").exists()
    assert prepare(config(archive, output)).is_reused


def test_a_source_that_cannot_be_used_leaves_the_folder_free_for_the_next_command(pictures, tmp_path):
    archive = as_compressed_tar(pictures, tmp_path)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be decompressed"):
        prepare(config(archive, tmp_path / "out"))
    archive.write_bytes(whole)
    assert len(prepare(config(archive, tmp_path / "out")).index) == 50


def test_a_temporarily_missing_source_loses_no_finished_shard(pictures, tmp_path):
    archive = as_compressed_tar(pictures, tmp_path)
    with pytest.raises(StoppedError):
        prepare(config(archive, tmp_path / "out"), stop_after(24))
    (unpacked,) = (tmp_path / "out/.parts").glob("unpacked-*.tar")
    kept = unpacked.read_bytes()
    unpacked.write_bytes(kept[:5000])
    with pytest.raises(UserError, match="cannot be read"):
        prepare(config(archive, tmp_path / "out"))
    unpacked.write_bytes(kept)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    prepare(config(archive, tmp_path / "out"))
    assert before and before == {path: path.stat().st_mtime_ns for path in before}


def test_the_command_says_how_many_were_skipped_and_why(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    whole = image_file(0, "JPEG", side=64)
    names = {"a": whole, "b": whole, "c": whole[:-20], "d": image_file(1, "JPEG", side=8)}
    for name, content in names.items():
        (folder / f"{name}.jpg").write_bytes(content)
    said = succeed("prepare", f"source={folder}", f"output={tmp_path}/out", "size=16").out
    assert "prepared: 1 images of 16 x 16" in said
    assert "skipped: 3 (1 duplicate, 1 too small, 1 unreadable)" in said
    lines = (tmp_path / "out/rejected.jsonl").read_text().splitlines()
    reasons = {about["image"]: about["reason"] for about in map(json.loads, lines)}
    assert reasons["b.jpg"] == "duplicate: of a.jpg"
    assert reasons["c.jpg"].startswith("unreadable: image file is truncated")
    assert len(ShardIndex.load(tmp_path / "out")) == 1
