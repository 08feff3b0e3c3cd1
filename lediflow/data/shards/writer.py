"""One tar shard in webdataset's layout, whole or absent; the same samples give the same bytes.

Each sample is `<key>.json` (its metadata) followed by `<key>.<payload>`. Samples are written as they arrive: memory
holds one. This is the only module that imports webdataset. Reading does not need it, and every program that reads tars
of that layout reads these.
"""

import json
import tarfile
import zlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lediflow.data.shards.index import ShardFile, key_name
from lediflow.disk import sha256_of, whole_or_absent


class Sample(NamedTuple):
    """One sample to be stored."""

    key: int
    label: int  # -1 for none
    payload: bytes
    metadata: dict[str, Any]
    name: str = ""  # its key in the tar, if that is not its number


class SampleRow(NamedTuple):
    """A sample's row of the table; the fields of index.ROW."""

    key: int
    offset: int
    length: int
    label: int
    crc32: int


class WrittenShard(NamedTuple):
    """A shard on disk, and its rows of the table."""

    file: ShardFile
    rows: list[SampleRow]


class Written(NamedTuple):
    """The facts about a sample that are known before its tar is finished."""

    key: int
    label: int
    crc32: int


def write_shard(path: Path, samples: Iterable[Sample], payload: str) -> WrittenShard | None:
    """Write samples to `path`, each payload as a member with the extension `payload`. Without samples, no file."""
    samples = iter(samples)
    first = next(samples, None)
    if first is None:
        return None
    with whole_or_absent(path) as stream:
        written = _write_tar(stream, chain([first], samples), payload)
    file = ShardFile(name=path.name, samples=len(written), bytes=path.stat().st_size, sha256=sha256_of(path))
    return WrittenShard(file, _rows(path, written, payload))


def _write_tar(stream: BinaryIO, samples: Iterable[Sample], payload: str) -> list[Written]:
    from webdataset import TarWriter

    written = []
    with TarWriter(stream, encoder=False, mtime=0, user="lediflow", group="lediflow") as tar:
        for sample in samples:
            metadata = json.dumps(sample.metadata, sort_keys=True).encode()
            tar.write(
                {"__key__": sample.name or key_name(sample.key), "json": metadata, payload: sample.payload}
            )
            written.append(Written(sample.key, sample.label, zlib.crc32(sample.payload)))
    return written


def _rows(path: Path, written: list[Written], payload: str) -> list[SampleRow]:
    with tarfile.open(path, "r:") as tar:
        places = [(item.offset_data, item.size) for item in tar if item.name.endswith(f".{payload}")]
    return [
        SampleRow(sample.key, offset, length, sample.label, sample.crc32)
        for sample, (offset, length) in zip(written, places, strict=True)
    ]
