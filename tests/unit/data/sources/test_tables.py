"""Parquet files with images, and lists of images in CSV or Parquet."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness.photographs import image_file

from lediflow.data.sources import SourceError

IMAGES = [image_file(number, kind) for number, kind in enumerate(["PNG", "JPEG", "WEBP"])]
HUGGING_FACE = {  # as `datasets` notes the columns of a set with images and classes
    "info": {
        "features": {
            "image": {"_type": "Image"},
            "fine_label": {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]},
        }
    }
}


def save(path: Path, table: pa.Table, **options) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def test_hugging_face_parquet_gives_images_with_the_names_of_their_classes(tmp_path, find):
    rows = [{"bytes": data, "path": f"photo.{n}.png"} for n, data in enumerate(IMAGES)]
    table = pa.table({"image": rows, "fine_label": [2, 0, 2]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(HUGGING_FACE)})
    found = find(save(tmp_path / "train.parquet", table, row_group_size=2))
    assert found.contents == IMAGES
    assert found.names == ["00000000_photo.0.png", "00000001_photo.1.png", "00000002_photo.2.png"]
    assert found.listing.classes == ["ant", "bee", "cat"]  # bee too, which no image here shows
    assert found.listing.labels == [2, 0, 2]


def test_img2dataset_parquet_gives_every_row_as_an_image(tmp_path, find):
    table = pa.table({"caption": ["a", "b", "c", "d"], "jpg": [*IMAGES, None], "key": list("0123")})
    found = find(save(tmp_path / "00000.parquet", table))
    assert found.contents == [*IMAGES, b""]  # a failed download is an unreadable image
    assert found.names == ["00000000.png", "00000001.jpg", "00000002.webp", "00000003.jpg"]
    assert found.listing.classes is None


def test_several_columns_of_binaries_are_distinguished_by_name_or_not_at_all(tmp_path, find):
    named = save(tmp_path / "1.parquet", pa.table({"mask": [b"m"] * 3, "image": IMAGES}))
    assert find(named).contents == IMAGES
    unclear = save(tmp_path / "2.parquet", pa.table({"left": IMAGES, "right": IMAGES}))
    with pytest.raises(SourceError, match=r"\(left, right\); rename the right one to image"):
        find(unclear)


def test_a_truncated_parquet_file_is_refused(tmp_path, find):
    path = save(tmp_path / "cut.parquet", pa.table({"image": IMAGES}))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        find(path)


LISTS = {
    "plain": "path,label\ncats/0.png,cat\n../outside/1.png,dog\n",
    "of Excel": "\ufeffLabel;Filename\r\ncat;cats/0.png\r\ndog;../outside/1.png\r\n",
    "quoted": 'file_name,note,category\n"cats/0.png","a, b",cat\n\n../outside/1.png,,dog\n',
    "with tabs": "image\tclass\ncats/0.png\tcat\n../outside/1.png\tdog\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
def test_a_list_names_its_images_from_its_own_folder_with_their_classes(write, find, text):
    write("outside", {"1.png": image_file(1)})
    folder = write("all", {"cats/0.png": image_file(0), "list.csv": text.encode()})
    found = find(folder / "list.csv")
    assert found.class_of == {"cats/0.png": "cat", "../outside/1.png": "dog"}
    assert sorted(found.contents) == sorted([image_file(0), image_file(1)])


PLAIN = "path,label\ncats/0.png,Bär\n../outside/1.png,Zoé\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("before", ["", "sep=,\r\n", '"sep=;"\n'])
def test_a_list_may_be_in_the_encodings_and_with_the_first_line_of_excel(write, find, encoding, before):
    text = before + (PLAIN.replace(",", ";") if ";" in before else PLAIN)
    found = find(write("all", {"list.csv": text.encode(encoding)}) / "list.csv")
    assert found.class_of == {"cats/0.png": "Bär", "../outside/1.png": "Zoé"}


def test_big_endian_utf16_with_tabs_is_what_excel_calls_unicode_text(write, find):
    text = "\ufeff" + PLAIN.replace(",", "\t")
    found = find(write("all", {"list.txt": text.encode("utf-16-be")}) / "list.txt")
    assert found.class_of == {"cats/0.png": "Bär", "../outside/1.png": "Zoé"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN.encode("utf-16-le"), "holds control characters, as UTF-16 without a byte order mark"),
        (PLAIN.encode("utf-16")[:-1], "begins like UTF-16, but cannot be read as such"),
        (b"path,label\na\0.png,1\n", "holds control characters"),
        (PLAIN.encode("latin-1"), r"the label B\\udce4r of cats/0\.png is not UTF-8"),
    ],
)
def test_a_list_that_is_not_text_is_refused_with_the_encoding_to_use(write, find, content, message):
    with pytest.raises(
        SourceError, match=rf"source=.*list\.csv.*{message}.*; save the list as (CSV in )?UTF-8"
    ):
        find(write("all", {"list.csv": content}) / "list.csv")


@pytest.mark.parametrize("header", ["", "path\n"])
def test_one_column_needs_no_header(write, find, header):
    folder = write(
        "all", {"a.png": image_file(0), "b": image_file(1), "list.csv": f"{header}b\na.png\n".encode()}
    )
    assert find(folder / "list.csv").contents == [image_file(0), image_file(1)]


def test_absolute_paths_and_numeric_classes_are_kept(write, find, tmp_path):
    folder = write("all", {"0.png": image_file(0), "1.png": image_file(1)})
    with (tmp_path / "list.csv").open("w") as stream:
        csv.writer(stream).writerows([["path", "label"], [folder / "0.png", 3], [folder / "1.png", 1]])
    listing = find(tmp_path / "list.csv").listing
    assert listing.labels == [3, 1]
    assert listing.classes == ["0", "1", "2", "3"]


def test_numbers_that_pandas_writes_as_floats_because_some_are_missing_are_numbers(write, find):
    folder = write("all", {"list.csv": b"path,label\na.png,1.0\nb.png,10.0\n"})
    assert find(folder / "list.csv").listing.labels == [1, 10]
    gaps = save(folder / "gaps.parquet", pa.table({"path": ["a.png", "b.png"], "label": [1.0, float("nan")]}))
    assert find(gaps).listing.classes is None


def test_a_parquet_list_names_its_images(write, find):
    folder = write("all", {"0.png": image_file(0), "1.png": image_file(1)})
    table = pa.table({"path": ["1.png", "0.png"], "cls": ["b", "a"], "width": [8, 8]})
    found = find(save(folder / "list.parquet", table))
    assert found.class_of == {"0.png": "a", "1.png": "b"}
    assert found.contents == [image_file(0), image_file(1)]


def test_if_some_images_have_no_class_there_are_no_classes(write, find):
    folder = write("all", {"list.csv": b"path,label\na.png,cat\nb.png,\n"})
    assert find(folder / "list.csv").listing.classes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo,year\na.png,1999\n", r"columns photo, year; a list of images names its paths path, file, "),
        ("path,label\na,b.png,cat\n", r"\['a', 'b\.png', 'cat'\] has 3 cells where the header has 2"),
        ("", r"holds no images|columns \(none\)"),
        (
            'path,label\na.png,cat\nb.png,"dog\nc.png,dog\n',
            r"the row behind line 2 cannot be read \(unexpected end",
        ),
        ('path,label\na.png,"' + "cat\n" * 50_000, r"the row behind line 1 cannot be read \(field larger"),
    ],
)
def test_a_list_that_cannot_be_understood_says_why(write, find, text, message):
    folder = write("all", {"list.csv": text.encode()})
    with pytest.raises(SourceError, match=message):
        find(folder / "list.csv")


WITHOUT = """
import sys
from pathlib import Path
sys.modules[sys.argv[1]] = None
from lediflow.data.sources import open_source, SourceError
try:
    list(open_source(Path(sys.argv[2])).ready(Path(sys.argv[3])).entries())
except SourceError as error:
    print(error)
"""


@pytest.mark.processes
@pytest.mark.parametrize("library", ["pyarrow", "lmdb"])
def test_a_library_that_is_missing_is_named_with_its_install_command(tmp_path, library):
    if library == "pyarrow":
        source = save(tmp_path / "1.parquet", pa.table({"image": IMAGES}))
    else:
        source = tmp_path / "lmdb"
        source.mkdir()
        (source / "data.mdb").write_bytes(b"")
    command = [sys.executable, "-c", WITHOUT, library, source, tmp_path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert library in said and "pip install 'lediflow[sources]'" in said
