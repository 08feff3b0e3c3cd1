"""Parquet files that hold images, or lists of images. This is the only module that imports pyarrow.

Images are in a column of binaries (img2dataset) or of structs {bytes, path} (Hugging Face). A row's class is in a
column named like a label, or one of Hugging Face's type ClassLabel, whose names are in the file's metadata. Row
groups are large, so rows are read in small batches and written to a tar.
"""

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lediflow.data.sources.listing import LABEL_COLUMNS, as_label
from lediflow.data.sources.names import image_extension, is_picture_name
from lediflow.data.sources.protocol import SourceError
from lediflow.data.sources.unpacking import PackedArchive

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "jpeg", "bytes", "image_bytes", "content", "data")
READ_BYTES = 2**20  # read from a row group at a time


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
