"""One finished shard's record: what the index will say of it, kept until every shard is there."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lediflow.data.shards.index import ROW, Contents, ShardFile
from lediflow.data.shards.writer import Sample, write_shard
from lediflow.disk import write_json
from lediflow.records import RecordError, read_dataclass, read_record

AGAIN = "delete it, and the same command makes its shard again"


@dataclass(kw_only=True)
class Part:
    """The record of one finished shard."""

    number: int
    handled: int  # samples looked at, rejected ones included
    file: ShardFile | None  # None where every sample was rejected
    rows: Shaped[np.ndarray, " samples"]  # of ROW
    rejected: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(
        default_factory=dict
    )  # key -> digest of the source's file, in hexadecimal
    measured: dict[str, list[float]] | None = None  # sums over latents, see latents.statistics

    def save(self, folder: Path) -> None:
        file = asdict(self.file) if self.file else None
        write_json(part_path(folder, self.number), vars(self) | {"file": file, "rows": self.rows.tolist()})

    @classmethod
    def load(cls, path: Path) -> "Part":
        """What `save` wrote; RecordError where it is cut or altered."""
        fields = dict(read_record(path, AGAIN))
        try:
            return read_dataclass(cls, fields | {"rows": as_rows(fields["rows"])}, "part")
        except (LookupError, ValueError, TypeError, OverflowError) as error:
            raise RecordError(f"{path}: {error}; {AGAIN}") from error


def part_path(folder: Path, number: int) -> Path:
    """Where a shard's record lies."""
    return folder / f"part-{number:06d}.json"


def write_part(root: Path, contents: Contents, number: int, samples: Iterable[Sample], handled: int) -> Part:
    """Write shard `number` of a set from samples as they come; no samples, no file."""
    written = write_shard(root / f"{contents.kind}-{number:06d}.tar", samples, contents.payload)
    if written is None:
        return Part(number=number, handled=handled, file=None, rows=as_rows([]))
    return Part(number=number, handled=handled, file=written.file, rows=as_rows(written.rows))


def as_rows(rows: Iterable[Iterable[int]]) -> Shaped[np.ndarray, " samples"]:
    """Rows as a table: a hundredth of the memory that lists take."""
    return np.array([tuple(row) for row in rows], dtype=ROW)
