"""Making a set of shards so that it can be interrupted and asked for again.

Each shard is an independent task. When one is finished, a small record of it is kept in `.parts`; the same
command continues after the recorded shards, and a finished set is reused. `made_from` (arguments and
fingerprint of the source) tells whether it is the same command; another one in the same folder is refused.
Whatever the interruptions, the finished bytes are the same.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from lediflow.data.files import PARTIAL, disk_errors_explained, write_json, write_json_lines
from lediflow.data.shards.index import INDEX_NAME, PARTS_NAME, ROW, Contents, ShardFile, ShardIndex
from lediflow.data.shards.writer import Sample, write_shard
from lediflow.errors import UserError

REJECTED_NAME = "rejected.jsonl"

Progress = Callable[[int, int], None]  # (samples done, samples in all)


@dataclass(kw_only=True)
class Part:
    """The record of one finished shard."""

    number: int
    handled: int  # samples looked at, rejected ones included
    file: ShardFile | None  # None where every sample was rejected
    rows: list[list[int]]
    rejected: list[dict[str, Any]] = field(default_factory=list)
    moments: dict[str, list[float]] | None = None  # sums over latents, see encode


class Task(Protocol):
    """One shard to make: its number and how many samples it looks at."""

    @property
    def number(self) -> int: ...

    def __len__(self) -> int: ...


T = TypeVar("T", bound=Task)


def write_part(root: Path, contents: Contents, number: int, samples: Iterable[Sample], handled: int) -> Part:
    """Write shard `number` of a set from samples as they come; no samples, no file."""
    written = write_shard(root / f"{contents.kind}-{number:06d}.tar", samples, contents.payload)
    if written is None:
        return Part(number=number, handled=handled, file=None, rows=[])
    return Part(number=number, handled=handled, file=written.file, rows=[list(row) for row in written.rows])


@dataclass
class ShardBuild:
    """A set of shards under construction in `root`."""

    root: Path
    contents: Contents

    @property
    def parts_folder(self) -> Path:
        return self.root / PARTS_NAME

    def finished(self) -> ShardIndex | None:
        """The index if this very set is already there; an error if another one is."""
        if (self.root / INDEX_NAME).exists():
            index = ShardIndex.load(self.root)
            self._check_same_job(index.contents.made_from)
            self.abandon()
            return index
        return None

    def complete(
        self, tasks: Sequence[T], make: Callable[[list[T]], Iterable[Part]], progress: Progress | None
    ) -> list[Part]:
        """All parts, of which `make` makes those that no earlier run finished."""
        parts = self._begin()
        total = sum(len(task) for task in tasks)
        for part in make([task for task in tasks if task.number not in parts]):
            self._keep(part)
            parts[part.number] = part
            if progress:
                progress(sum(part.handled for part in parts.values()), total)
        return [parts[number] for number in sorted(parts)]

    def _begin(self) -> dict[int, Part]:
        """Claim the folder; the parts that an earlier, interrupted run finished."""
        job = self.parts_folder / "job.json"
        if job.exists():
            self._check_same_job(json.loads(job.read_text()))
        else:
            self._check_empty()
            write_json(job, self.contents.made_from)
        parts = (_read_part(path) for path in sorted(self.parts_folder.glob("part-*.json")))
        return {part.number: part for part in parts if self._is_intact(part)}

    def _keep(self, part: Part) -> None:
        """Record a finished shard."""
        write_json(self.parts_folder / f"part-{part.number:06d}.json", asdict(part))

    def finish(self, parts: list[Part], statistics: dict[str, list[float]] | None = None) -> ShardIndex:
        """Write the index over all parts, last of all, and clear the records."""
        files = [part.file for part in parts if part.file]
        table = np.array([tuple(row) for part in parts for row in part.rows], dtype=ROW)
        rejected = [row for part in parts for row in part.rejected]
        write_json_lines(self.root / REJECTED_NAME, rejected)
        contents = replace(self.contents, statistics=statistics)
        ShardIndex(root=self.root, contents=contents, shards=files, table=table).save(self.root)
        self.abandon()
        return ShardIndex.load(self.root)

    def abandon(self) -> None:
        """Clear the records of finished shards, and what killed processes left half-written."""
        shutil.rmtree(self.parts_folder, ignore_errors=True)
        for path in self.root.glob(f".*{PARTIAL}"):
            path.unlink(missing_ok=True)

    def rejections(self) -> dict[str, int]:
        """Reason -> number of images that a finished set had to leave out."""
        rows = map(json.loads, (self.root / REJECTED_NAME).read_text().splitlines())
        return dict(Counter(row["reason"].split(":")[0] for row in rows))

    def _is_intact(self, part: Part) -> bool:
        if part.file is None:
            return True
        path = self.root / part.file.name
        return path.exists() and path.stat().st_size == part.file.bytes

    def _check_empty(self) -> None:
        with disk_errors_explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        if found:
            raise UserError(
                f"output={self.root} is not empty (found {', '.join(found[:3])}); choose another folder"
            )

    def _check_same_job(self, before: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.contents.made_from))
        changed = [
            f"{name}: {before.get(name)} then, {new} now"
            for name, new in now.items()
            if before.get(name) != new
        ]
        if changed:
            raise UserError(
                f"output={self.root} holds shards of another command ({'; '.join(changed)}); "
                "choose another output, or delete that folder to make it anew"
            )


def _read_part(path: Path) -> Part:
    fields = json.loads(path.read_text())
    file = ShardFile(**fields.pop("file")) if fields["file"] else fields.pop("file")
    return Part(file=file, **fields)
