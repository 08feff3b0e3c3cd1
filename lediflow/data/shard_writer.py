"""One tar shard in webdataset's layout, whole or absent, the same bytes each time.

Each sample is `<key>.json` (its metadata) followed by `<key>.<payload>`. The only home of webdataset: reading
needs none, and anything that reads tars of that layout reads these.
"""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lediflow.data.files import sha256_of, whole_or_absent
from lediflow.data.index import ShardFile, key_name


class Sample(NamedTuple):
    """What is stored about one image."""

    key: int
    label: int  # -1 for none
    payload: bytes
    metadata: dict[str, Any]


class Row(NamedTuple):
    """Where a sample lies; the fields of index.ROW."""

    key: int
    label: int
    offset: int
    length: int


class WrittenShard(NamedTuple):
    """A shard on disk and its part of the table."""

    file: ShardFile
    rows: list[Row]


def write_shard(path: Path, samples: Sequence[Sample], payload: str) -> WrittenShard:
    """Write samples to `path`; `payload` is the extension of the payload's member."""
    with whole_or_absent(path) as stream:
        _write_tar(stream, samples, payload)
    file = ShardFile(name=path.name, samples=len(samples), bytes=path.stat().st_size, sha256=sha256_of(path))
    return WrittenShard(file, _rows(path, samples, payload))


def _write_tar(stream: Any, samples: Sequence[Sample], payload: str) -> None:
    from webdataset import TarWriter

    with TarWriter(stream, encoder=False, mtime=0, user="lediflow", group="lediflow") as tar:
        for sample in samples:
            metadata = json.dumps(sample.metadata, sort_keys=True).encode()
            tar.write({"__key__": key_name(sample.key), "json": metadata, payload: sample.payload})


def _rows(path: Path, samples: Sequence[Sample], payload: str) -> list[Row]:
    with tarfile.open(path, "r:") as tar:
        found = {member.name: (member.offset_data, member.size) for member in tar}
    return [Row(s.key, s.label, *found[f"{key_name(s.key)}.{payload}"]) for s in samples]
