"""Folders of webdataset, img2dataset and Hugging Face archives, and LMDBs."""

import io
import json
import pickle
import tarfile

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from harness.photographs import image_file

from lediflow.data.sources import SourceError, open_source


def write_tar(path, samples: list[dict]) -> None:
    """As webdataset writes it."""
    path.parent.mkdir(exist_ok=True)
    with webdataset.TarWriter(str(path)) as tar:
        for sample in samples:
            tar.write(sample)


def test_tars_of_one_set_are_read_as_one_source_named_after_them(tmp_path, find):
    for shard in range(2):
        samples = [
            {
                "__key__": f"{shard}{n}",
                "png": image_file(10 * shard + n),
                "txt": "a caption",
                "json": {"key": n},
            }
            for n in range(3)
        ]
        write_tar(tmp_path / f"set/0000{shard}.tar", samples)
        pq.write_table(pa.table({"url": ["http://..."]}), tmp_path / f"set/0000{shard}.parquet")
    found = find(tmp_path / "set")
    assert found.names == [f"0000{shard}.tar/{shard}{n}.png" for shard in range(2) for n in range(3)]
    assert found.contents == [image_file(number) for number in (0, 1, 2, 10, 11, 12)]
    assert found.listing.classes is None  # archives are parts, not classes


@pytest.mark.parametrize("label", [{"cls": 3}, {"json": {"label": 3, "caption": "c"}}, {"json": {"cls": 3}}])
def test_a_label_file_next_to_the_image_is_its_class(tmp_path, find, label):
    write_tar(
        tmp_path / "set/0.tar",
        [{"__key__": "a/x", "jpg": b"1", **label}, {"__key__": "b/y", "cls": 0, "jpg": b"2"}],
    )
    found = find(tmp_path / "set")
    assert found.class_of == {"0.tar/a/x.jpg": "3", "0.tar/b/y.jpg": "0"}
    assert found.listing.classes == ["0", "1", "2", "3"]  # numbers stay what they are


def test_names_as_labels_are_numbered_in_their_order(tmp_path, find):
    write_tar(
        tmp_path / "set/0.tar", [{"__key__": key, "cls": key.encode(), "jpg": b"1"} for key in ("owl", "ant")]
    )
    assert find(tmp_path / "set/0.tar").class_of == {"ant.jpg": "ant", "owl.jpg": "owl"}


def test_class_folders_inside_archives_are_classes(tmp_path, find):
    for shard in range(2):
        write_tar(
            tmp_path / f"set/{shard}.tar",
            [{"__key__": f"{kind}/{shard}", "jpg": b"1"} for kind in ("ant", "bee")],
        )
    assert find(tmp_path / "set").listing.labels == [0, 1, 0, 1]


def test_parquet_files_and_compressed_tars_lie_side_by_side(tmp_path, find):
    (tmp_path / "set/nested").mkdir(parents=True)
    pq.write_table(pa.table({"jpg": [image_file(0, "JPEG")]}), tmp_path / "set/nested/a.parquet")
    with tarfile.open(tmp_path / "set/b.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("x.png")
        member.size = len(image_file(1))
        tar.addfile(member, io.BytesIO(image_file(1)))
    found = find(tmp_path / "set")
    assert found.names == ["b.tar.gz/x.png", "nested/a.parquet/00000000.jpg"]
    assert found.contents == [image_file(1), image_file(0, "JPEG")]


def test_changing_an_archive_changes_the_identity_of_a_folder_of_archives(tmp_path):
    identities = set()
    for content in (b"1", b"2"):
        write_tar(tmp_path / "set/0.tar", [{"__key__": "x", "jpg": content}])
        identities.add(json.dumps(open_source(tmp_path / "set").identity().record))
    assert len(identities) == 2


KEYS = {  # as LSUN, StyleGAN's tools and others write them
    b"0a1b2c": image_file(0, "WEBP"),
    b"256-00001": image_file(1, "JPEG"),
    b"cats/2.png": image_file(2),
    b"\xff\xfe": image_file(3),
    b"length": b"4",
}


@pytest.mark.parametrize("is_folder", [True, False])
def test_the_images_of_an_lmdb_are_found_by_their_content(tmp_path, find, is_folder):
    path = str(tmp_path / "set")
    with lmdb.open(path, subdir=is_folder) as environment, environment.begin(write=True) as transaction:
        for key, value in KEYS.items():
            transaction.put(key, value)
    found = find(tmp_path / "set")
    assert found.names == ["0a1b2c.webp", "256-00001.jpg", "cats/2.png", "\udcff\udcfe.png"]
    assert found.contents == [image_file(0, "WEBP"), image_file(1, "JPEG"), image_file(2), image_file(3)]
    assert pickle.loads(pickle.dumps(found.source)).read(found.listing.images[1]) == image_file(1, "JPEG")


def test_an_lmdb_of_more_than_a_page_is_listed_whole(tmp_path, find):
    with (
        lmdb.open(str(tmp_path / "set"), map_size=2**26) as environment,
        environment.begin(write=True) as writer,
    ):
        for number in range(10_000):
            writer.put(f"{number:05d}".encode(), b"\xff\xd8\xff")
    assert find(tmp_path / "set").names == [f"{number:05d}.jpg" for number in range(10_000)]


def test_files_beside_archives_are_counted_but_not_img2datasets_tables(tmp_path, find):
    write_tar(tmp_path / "set/0.tar", [{"__key__": "x", "jpg": b"1"}])
    pq.write_table(pa.table({"url": ["http://..."]}), tmp_path / "set/0.parquet")
    (tmp_path / "set/0_stats.json").write_text("{}")
    (tmp_path / "set/1.rar").write_bytes(b"")
    assert find(tmp_path / "set").listing.passed_over.kinds == {".json": 1, ".rar": 1}


def test_parquet_files_that_number_their_classes_differently_are_refused(tmp_path, find):
    (tmp_path / "set").mkdir()
    for number, names in enumerate((["ant", "bee"], ["bee", "cat"])):
        features = {"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}
        table = pa.table({"image": [image_file(number)], "label": [0]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, tmp_path / f"set/{number}.parquet")
    with pytest.raises(
        SourceError, match=r"0.parquet and 1.parquet number different classes \(ant, bee; bee, c"
    ):
        find(tmp_path / "set")
