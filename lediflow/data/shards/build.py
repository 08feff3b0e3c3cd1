"""Making a set of shards that can be interrupted, repeated and shared by processes.

Each shard is an independent task. A small record of every finished shard is kept in `.parts` until the index is
written from all of them. The same command continues after the recorded shards, and reuses a finished set. `made_from`
(arguments and fingerprint of the source) identifies the command; a folder that another command began is refused. The
finished bytes depend neither on interruptions nor on which process made which shard.

Processes that share a set coordinate through its folder alone. Files appear whole, and two processes that write the
same name write the same bytes, so the order does not matter and no locks are needed.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from jaxtyping import Shaped

from lediflow.claims import refuse_foreign, visible_names
from lediflow.data.shards.index import AGAIN, INDEX_NAME, PARTS_NAME, ROW, Contents, ShardFile, ShardIndex
from lediflow.data.shards.writer import Sample, write_shard
from lediflow.data.workers import OnProgress
from lediflow.disk import clear_abandoned, write_json, write_json_lines
from lediflow.errors import UserError, disk_errors_explained
from lediflow.records import RecordError, changes, parse_json, read_dataclass, read_record

PART_AGAIN = "delete it, and the same command makes its shard again"
REJECTED_NAME = "rejected.jsonl"
# Fields of `made_from` about how samples are made. A finished set of an earlier release, made by other rules, is kept;
# an unfinished one is not continued.
RULES = ("pixels",)
FINGERPRINT = "fingerprint"
FILES = ("archives", "bytes", FINGERPRINT, "images")  # facts about the files of a source that was prepared
log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Part:
    """The record of one finished shard."""

    number: int
    handled: int  # samples processed, including rejected ones
    file: ShardFile | None  # None if every sample was rejected
    rows: Shaped[np.ndarray, " samples"]  # of dtype ROW
    rejected: list[dict[str, Any]] = field(default_factory=list)
    # key -> digest of the source's file, in hexadecimal
    digests: dict[str, str] = field(default_factory=dict)
    measured: dict[str, list[float]] | None = None  # sums over latents, see latents.py

    def save(self, folder: Path) -> None:
        file = asdict(self.file) if self.file else None
        write_json(part_path(folder, self.number), vars(self) | {"file": file, "rows": self.rows.tolist()})

    @classmethod
    def load(cls, path: Path) -> "Part":
        """Read what `save` wrote; RecordError if it is truncated or altered."""
        fields = dict(read_record(path, PART_AGAIN))
        try:
            return read_dataclass(cls, fields | {"rows": as_rows(fields["rows"])}, "part")
        except (LookupError, ValueError, TypeError, OverflowError) as error:
            raise RecordError(f"{path}: {error}; {PART_AGAIN}") from error


def part_path(folder: Path, number: int) -> Path:
    """Path of a shard's record."""
    return folder / f"part-{number:06d}.json"


def write_part(root: Path, contents: Contents, number: int, samples: Iterable[Sample], handled: int) -> Part:
    """Write shard `number` of a set from samples as they arrive. Without samples there is no file."""
    written = write_shard(root / f"{contents.kind}-{number:06d}.tar", samples, contents.payload)
    if written is None:
        return Part(number=number, handled=handled, file=None, rows=as_rows([]))
    return Part(number=number, handled=handled, file=written.file, rows=as_rows(written.rows))


def as_rows(rows: Iterable[Iterable[int]]) -> Shaped[np.ndarray, " samples"]:
    """Rows as a table, which takes a hundredth of the memory of lists."""
    return np.array([tuple(row) for row in rows], dtype=ROW)


class Task(Protocol):
    """One shard to make: its number, and its number of samples including those that will be rejected."""

    @property
    def number(self) -> int: ...

    def __len__(self) -> int: ...


T = TypeVar("T", bound=Task)


@dataclass
class ShardBuild:
    """A set of shards under construction in `root`."""

    root: Path
    contents: Contents

    @property
    def parts_folder(self) -> Path:
        return self.root / PARTS_NAME

    def finished(self) -> ShardIndex | None:
        """The index if this set is finished; None if it is not; UserError if `root` holds another set."""
        if (self.root / INDEX_NAME).exists():
            index = ShardIndex.load(self.root)
            now = self.contents.made_from
            rules = {name: now[name] for name in RULES if name in now}
            self._check_same_job(index.contents.made_from | rules)
            self.abandon()
            return index
        return None

    def complete(
        self, tasks: Sequence[T], make: Callable[[list[T]], Iterable[Part]], progress: OnProgress | None
    ) -> list[Part]:
        """The parts of these tasks; `make` is called for those that no earlier run finished."""
        self.claim()
        parts = {task.number: part for task in tasks if (part := self._recorded(task.number))}
        total = sum(len(task) for task in tasks)
        if progress and total:
            progress(sum(part.handled for part in parts.values()), total)
        for part in make([task for task in tasks if task.number not in parts]):
            with self._cleared_if_finished():
                part.save(self.parts_folder)
            parts[part.number] = part
            if progress:
                progress(sum(part.handled for part in parts.values()), total)
        return [parts[number] for number in sorted(parts)]

    def recorded(self, tasks: Sequence[Task]) -> list[Part]:
        """The parts of these tasks that any process has finished so far."""
        return [part for task in tasks if (part := self._recorded(task.number))]

    def all_recorded(self) -> list[Part]:
        """Every part that is finished so far."""
        numbers = (
            int(path.stem.rpartition("-")[2]) for path in sorted(self.parts_folder.glob("part-*.json"))
        )
        return [part for number in numbers if (part := self._recorded(number))]

    def forget(self) -> None:
        """Remove finished shards and their records, so that all are made again."""
        for path in [*self.parts_folder.glob("part-*.json"), *self.root.glob(f"{self.contents.kind}-*.tar")]:
            path.unlink()

    def finish(
        self,
        parts: list[Part],
        statistics: dict[str, list[float]] | None = None,
        names: Shaped[np.ndarray, " samples"] | None = None,
    ) -> ShardIndex:
        """Write the index over all parts as the last file, and remove the records; `names` are non-numeric keys."""
        files = [part.file for part in parts if part.file]
        table = np.concatenate([np.empty(0, ROW), *(part.rows for part in parts)])
        rejected = [row for part in parts for row in part.rejected]
        write_json_lines(self.root / REJECTED_NAME, rejected)
        contents = replace(self.contents, statistics=statistics)
        ShardIndex(root=self.root, contents=contents, shards=files, table=table, names=names).save(self.root)
        self.abandon()
        return ShardIndex.load(self.root)

    def abandon(self) -> None:
        """Remove the records of finished shards, and unfinished files of killed processes."""
        shutil.rmtree(self.parts_folder, ignore_errors=True)
        clear_abandoned(self.root)

    def rejections(self) -> dict[str, int]:
        """Number of images that a finished set had to leave out, by reason."""
        path = self.root / REJECTED_NAME
        try:
            rows = [parse_json(line, str(path), AGAIN) for line in path.read_bytes().splitlines()]
            return dict(Counter(row["reason"].split(":")[0] for row in rows))
        except (OSError, TypeError, LookupError, AttributeError) as error:
            raise RecordError(f"{path} cannot be read ({error}); {AGAIN}") from error

    def claim(self) -> None:
        """Record which command this folder belongs to, before anything else is written; refuse another command's."""
        job = self.parts_folder / "job.json"
        if not job.exists():
            self._check_empty(job)
            with self._cleared_if_finished():
                write_json(job, self.contents.made_from)
        self._check_same_job(_record_or_none(job) or self.contents.made_from)
        for folder in (self.root, self.parts_folder):  # unfinished files of a killed run may fill the disk
            clear_abandoned(folder)

    @contextmanager
    def _cleared_if_finished(self) -> Iterator[None]:
        """Ignore a record that cannot be written because another process has just finished the set."""
        try:
            yield
        except UserError as error:
            is_gone = isinstance(error.__cause__, FileNotFoundError)
            if not (is_gone and (self.root / INDEX_NAME).exists()):
                raise

    def _recorded(self, number: int) -> Part | None:
        """The record of a shard, if the shard is finished and its file exists."""
        record = part_path(self.parts_folder, number)
        try:
            part = Part.load(record)
        except RecordError as error:
            if record.exists():
                log.warning("%s; the shard is made again", error)
            return None
        if part.file is None:
            return part
        path = self.root / part.file.name
        return part if path.exists() and path.stat().st_size == part.file.bytes else None

    def _check_empty(self, job: Path) -> None:
        with disk_errors_explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        found = visible_names(self.root)
        is_claimed = job.exists() or (self.root / INDEX_NAME).exists()  # by a process that started with us
        if not is_claimed:
            refuse_foreign(self.root, "output", found)

    def _check_same_job(self, before: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.contents.made_from))
        if FINGERPRINT in now and before != now and without(FILES, before) == without(FILES, now):
            counts = changes(without([FINGERPRINT], before), without([FINGERPRINT], now))
            raise UserError(
                f"output={self.root} was made from other files{f' ({counts})' if counts else ''}: files of the source "
                "were added, removed or edited since, or this is another source of the same name; choose another "
                "output, or delete that folder to make the set again"
            )
        if changed := changes(before, now):
            raise UserError(
                f"output={self.root} holds shards of another command ({changed}); "
                "choose another output, or delete that folder to make the set again"
            )


def without(names: Collection[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without these entries."""
    return {name: value for name, value in record.items() if name not in names}


def _record_or_none(path: Path) -> Any:
    try:
        return read_record(path, f"delete {path.parent.parent}, and the same command makes it again")
    except RecordError:
        if path.exists():
            raise
        return None
