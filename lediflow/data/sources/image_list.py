"""A list of photographs: a CSV or Parquet file with a column of paths and, optionally, one of classes.

    path,label
    cats/0001.jpg,cat

Relative paths begin in the list's folder. A CSV of one column needs no header. Text may be UTF-8, or UTF-16 and UTF-32
with a byte order mark, as people, pandas or Excel save it.
"""

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from lediflow.data.sources.listing import LABEL_COLUMNS, as_label
from lediflow.data.sources.names import shown
from lediflow.data.sources.parquet import table_columns, table_rows
from lediflow.data.sources.protocol import (
    DirectSource,
    Entry,
    Identity,
    SourceError,
    file_entry,
    files_identity,
)

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
class ImageList(DirectSource):
    """The files that a table names."""

    path: Path

    def identity(self) -> Identity:
        return files_identity(self.entries(), labelled=True)

    def entries(self) -> Iterator[Entry]:
        is_parquet = self.path.suffix.lower() not in LIST_EXTENSIONS
        for name, *label in self._parquet_rows() if is_parquet else self._csv_rows():
            path, found = Path(name).as_posix(), as_label(label[0]) if label else None
            if isinstance(found, str) and shown(found) != found:
                raise SourceError(
                    f"source={self.path}: the label {shown(found)} of {shown(path)} is not UTF-8; save the list as "
                    "UTF-8"
                )
            yield file_entry(path, self.path.parent / name, found)

    def read(self, entry: Entry) -> bytes:
        return (self.path.parent / entry.name).read_bytes()

    def is_image(self, entry: Entry) -> bool:
        return True  # every listed file is an image, whatever its name

    def _parquet_rows(self) -> Iterable[list[Any]]:
        columns = table_columns(self.path)
        chosen = [columns[place] for place in self._places(columns)]
        return (values for _, values in table_rows(self.path, chosen, rows_at_once=1024) if values[0])

    def _csv_rows(self) -> Iterator[list[str]]:
        lines = text_lines(self.path)
        first = next(lines, "")
        if named := SEPARATOR_LINE.fullmatch(first):
            delimiter = named[1]
        else:
            delimiter, lines = max(DELIMITERS, key=first.count), chain([first], lines)
        rows = self._filled_rows(csv.reader(lines, delimiter=delimiter, strict=True))
        header = next(rows, [])
        if len(header) == 1 and header[0].strip().lower() not in PATH_COLUMNS:
            yield header
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
