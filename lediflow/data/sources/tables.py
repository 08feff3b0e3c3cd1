"""Tables: Parquet files that hold images, and lists of images. This is the only module that imports pyarrow.

ParquetImages: images are in a column of binaries (img2dataset) or of structs {bytes, path} (Hugging Face). A row's
class is in a column named like a label, or one of Hugging Face's type ClassLabel, whose names are in the file's
metadata. Row groups are large, so rows are read in small batches and written to a tar.

ImageList: a CSV or Parquet file with a column of paths and, optionally, one of classes.

    path,label
    cats/0001.jpg,cat

Relative paths begin in the list's folder. A CSV of one column needs no header. Text may be UTF-8, or UTF-16 and UTF-32
with a byte order mark, as people, pandas or Excel save it.
"""

import codecs
import csv
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lediflow.data.sources.archives import PackedArchive
from lediflow.data.sources.labels import LABEL_COLUMNS, as_label
from lediflow.data.sources.names import image_extension, is_picture_name, printable
from lediflow.data.sources.protocol import (
    DirectSource,
    Entry,
    Identity,
    SourceError,
    file_entry,
    files_identity,
)

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "jpeg", "bytes", "image_bytes", "content", "data")
READ_BYTES = 2**20  # read from a row group at a time
PATH_COLUMNS = ("path", "file", "filename", "file_name", "image")
LIST_EXTENSIONS = (".csv", ".tsv", ".txt")
DELIMITERS = ",\t;"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # written by Excel before the header
# UTF-32 first: its little-endian mark begins like that of UTF-16
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
SAVE_ANEW = "save the list as CSV in UTF-8"


@dataclass
class ParquetImages(PackedArchive):
    """Images in the rows of a Parquet file."""

    path: Path

    @property
    def class_names(self) -> list[str] | None:
        return _class_labels(self.path).get(self._label_column or "")

    def unpack(self, tar: BinaryIO) -> Iterator[float]:
        columns = [column for column in (self._image_column, self._label_column) if column]
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for row, (share, values) in enumerate(table_rows(self.path, columns)):
                _write(archive, row, *values)
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every one
                yield share

    @cached_property
    def _image_column(self) -> str:
        columns = image_columns(self.path)
        if len(columns) == 1:
            return columns[0]
        for name in IMAGE_COLUMNS:
            if name in columns:
                return name
        raise SourceError(
            f"source={self.path} has several columns that may hold images ({', '.join(columns)}); "
            "rename the right one to image"
        )

    @cached_property
    def _label_column(self) -> str | None:
        candidates = [*LABEL_COLUMNS, *_class_labels(self.path)]
        present = table_columns(self.path)
        return next((name for name in candidates if name in present), None)


def image_columns(path: Path) -> list[str]:
    """Names of columns of binaries, or of structs with a binary field `bytes`."""
    with _opened(path) as table:
        return [field.name for field in table.schema_arrow if _is_binary(field.type)]


def table_columns(path: Path) -> list[str]:
    """Names of all columns."""
    with _opened(path) as table:
        return list(table.schema_arrow.names)


def table_rows(path: Path, columns: list[str], rows_at_once: int = 32) -> Iterator[tuple[float, list[Any]]]:
    """Values of these columns row by row, each with the fraction of the file read so far."""
    with _opened(path) as table:
        done, total = 0, table.metadata.num_rows
        for batch in table.iter_batches(rows_at_once, columns=columns, use_threads=False):
            values = batch.to_pydict()
            for row in zip(*(values[column] for column in columns), strict=True):
                done += 1
                yield done / total, list(row)


def _write(archive: tarfile.TarFile, row: int, image: Any, label: Any = None) -> None:
    content = (image.get("bytes") if isinstance(image, dict) else image) or b""
    name = PurePosixPath((image.get("path") if isinstance(image, dict) else None) or "").name
    key = f"{row:08d}_{name}" if name else f"{row:08d}"
    if not is_picture_name(key):
        # content that is not an image is reported when it is decoded
        key += image_extension(content) or ".jpg"
    members = [(key, content)]
    if as_label(label) is not None:
        members.append((f"{key.partition('.')[0]}.cls", str(as_label(label)).encode()))
    for member, data in members:
        about = tarfile.TarInfo(member)
        about.size = len(data)
        archive.addfile(about, BytesIO(data))


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(part.name == "bytes" and _is_binary(part.type) for part in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _class_labels(path: Path) -> dict[str, list[str]]:
    """Class names by column, as the `datasets` library records them in the file's metadata."""
    with _opened(path) as table:
        noted = (table.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(noted).get("info", {}).get("features", {})
    return {
        column: about["names"]
        for column, about in features.items()
        if isinstance(about, dict) and about.get("_type") == "ClassLabel" and "names" in about
    }


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SourceError(
            f"reading {path.name} needs the package pyarrow: pip install 'lediflow[sources]'"
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as table:
            yield table
    except pyarrow.ArrowException as error:
        raise SourceError(f"source={path} cannot be read as Parquet ({error}); copy it again") from error


@dataclass
class ImageList(DirectSource):
    """The files that a table names."""

    path: Path

    def identity(self) -> Identity:
        return files_identity(self.entries(), labelled=True)

    def entries(self) -> Iterator[Entry]:
        for name, *label in self._parquet_rows() if self._is_parquet else self._csv_rows():
            path, found = Path(name).as_posix(), as_label(label[0]) if label else None
            if isinstance(found, str) and printable(found) != found:
                raise SourceError(
                    f"source={self.path}: the label {printable(found)} of {printable(path)} is not UTF-8; save the "
                    "list as UTF-8"
                )
            yield file_entry(path, self.path.parent / name, found)

    def read(self, entry: Entry) -> bytes:
        return (self.path.parent / entry.name).read_bytes()

    def is_image(self, entry: Entry) -> bool:
        return True  # every listed file is an image, also without a picture's extension

    def notes(self) -> list[str]:
        columns = (table_columns(self.path) if self._is_parquet else self._csv()[0]) or []
        read = self._places(columns) if columns else []
        others = [column for place, column in enumerate(columns) if place not in read]
        if len(read) != 1 or not others:
            return []
        return [
            f"columns of the list that are not read: {', '.join(map(printable, others))}; labels are read from a "
            f"column called {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}"
        ]

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() not in LIST_EXTENSIONS

    def _parquet_rows(self) -> Iterable[list[Any]]:
        columns = table_columns(self.path)
        chosen = [columns[place] for place in self._places(columns)]
        return (values for _, values in table_rows(self.path, chosen, rows_at_once=1024) if values[0])

    def _csv_rows(self) -> Iterator[list[str]]:
        header, rows = self._csv()
        if header is None:
            yield from rows
            return
        places = self._places(header)
        for row in rows:
            if len(row) != len(header):
                raise SourceError(
                    f"source={self.path}: {row} has {len(row)} cells where the header has {len(header)}; "
                    "quote cells that hold the separator"
                )
            yield [row[place] for place in places]

    def _csv(self) -> tuple[list[str] | None, Iterator[list[str]]]:
        """The header, None for a list of paths alone, and the rows below it."""
        lines = text_lines(self.path)
        first = next(lines, "")
        if named := SEPARATOR_LINE.fullmatch(first):
            delimiter = named[1]
        else:
            delimiter, lines = max(DELIMITERS, key=first.count), chain([first], lines)
        rows = self._filled_rows(csv.reader(lines, delimiter=delimiter, strict=True))
        header = next(rows, [])
        if len(header) == 1 and header[0].strip().lower() not in PATH_COLUMNS:
            return None, chain([header], rows)
        return header, rows

    def _filled_rows(self, reader: Any) -> Iterator[list[str]]:
        """Rows that are not empty; SourceError for one that cannot be parsed."""
        line = 0
        try:
            for row in reader:
                line = reader.line_num
                if any(row):
                    yield row
        except csv.Error as error:
            raise SourceError(
                f"source={self.path}: the row behind line {line} cannot be read ({error}); close the quotation "
                "mark that begins a cell, and double those inside it"
            ) from error

    def _places(self, columns: list[str]) -> list[int]:
        """Indices of the column of paths and, if there is one, of the column of labels."""
        plain = [column.strip().lower() for column in columns]
        paths = [plain.index(name) for name in PATH_COLUMNS if name in plain]
        labels = [plain.index(name) for name in LABEL_COLUMNS if name in plain]
        if not paths:
            raise SourceError(
                f"source={self.path} has the columns {', '.join(columns) or '(none)'}; a list of images names its "
                f"paths {', '.join(PATH_COLUMNS)} and, if there are classes, {', '.join(LABEL_COLUMNS)}"
            )
        return [paths[0], *labels[:1]]


def text_lines(path: Path) -> Iterator[str]:
    """Lines with their line ends; bytes that are not UTF-8 are kept as surrogates. SourceError if it is not text."""
    with path.open("rb") as file:
        head = file.read(4)
    encoding = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "utf-8-sig")
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    try:
        with path.open(newline="", encoding=encoding, errors=errors) as stream:
            for line in stream:
                if NO_TEXT.search(line):
                    raise SourceError(
                        f"source={path} holds control characters, as UTF-16 without a byte order mark and files "
                        f"that are not text do; {SAVE_ANEW}"
                    )
                yield line
    except UnicodeError as error:
        raise SourceError(
            f"source={path} begins like {encoding.upper()}, but cannot be read as such ({error}); {SAVE_ANEW}"
        ) from error
