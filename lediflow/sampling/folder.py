"""A folder of drawn pictures and its record, which agree at any moment, also after kill -9.

samples.json       settings, count, SHA-256 of every picture; "unfinished": true until all are there
.samples.journal   while a command draws: the pictures of each finished batch; locked by that command

The record is written before the first picture, as unfinished, and covers every picture that is there: those of other
settings are removed before it changes. An interrupted command continues, since image i depends on the weights, the
seed and i alone. Pictures that no record covers are neither overwritten nor measured.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jaxtyping import Float
from torch import Tensor

from lediflow.claims import named, refuse_foreign, visible_names
from lediflow.data.sources.names import is_picture_name
from lediflow.disk import clear_abandoned, disk_errors_explained, sha256_of, write_json
from lediflow.errors import UserError
from lediflow.records import RecordError, as_record, parse_json, read_record
from lediflow.sampling.pictures import picture_name, save_pictures

RECORD, JOURNAL = "samples.json", ".samples.journal"
MOST_IMAGES = 10_000_000  # in one folder; their names and hashes are held in memory
AGAIN = "remove it and the pictures beside it, and draw them again"
LINE_TYPES = {"files": dict[str, str], "nfe": float}
TYPES = {**LINE_TYPES, "count": int, "weights": dict[str, Any]}

Record = dict[str, Any]


@dataclass(frozen=True)
class SampleFolder:
    root: Path

    def record(self) -> Record | None:
        """What samples.json says, with the journal's pictures; None where there is none of lediflow.sample.

        RecordError for an empty one: the origin of the pictures next to it is unknown.
        """
        path = self.root / RECORD
        if not os.path.lexists(path):
            return None
        found: Record = read_record(path, AGAIN)
        if not found:
            raise RecordError(
                f"{path} holds nothing ({{}}), so the origin of the pictures next to it is unknown; {AGAIN}"
            )
        if "weights" not in found:
            return None
        found = as_record(found, str(path), AGAIN, TYPES)
        if not 1 <= found["count"] <= MOST_IMAGES:
            raise RecordError(f"{path}: count is {found['count']}, not 1 to {MOST_IMAGES}; {AGAIN}")
        found["count"] = int(found["count"])
        if found.get("unfinished"):
            for line in journal_lines(self.root / JOURNAL):
                found["files"] = found.get("files", {}) | line["files"]
                found["nfe"] = max(found.get("nfe", 0), line["nfe"])
        return found

    def check(self) -> None:
        """UserError if something is there that no record covers."""
        record = self.record()
        if record is None:
            refuse_foreign(self.root, "output", visible_names(self.root))
        elif extra := self.uncovered(record):
            raise UserError(
                f"output={self.root} holds pictures that its {RECORD} does not list ({named(extra)}); "
                "remove them, or choose another folder"
            )

    def uncovered(self, record: Record) -> list[str]:
        """Pictures that the record does not list."""
        listed = set(names_of(record))
        return [name for name in visible_names(self.root) if name not in listed and is_picture_name(name)]

    def is_intact(self, record: Record, name: str) -> bool:
        """Whether a listed picture is there as it was written; older records know no more than that it was."""
        path = self.root / name
        if "files" not in record:
            return path.is_file()
        return path.is_file() and record["files"].get(name) == sha256_of(path)

    def has_all(self, settings: Mapping[str, Any], count: int) -> bool:
        """Whether exactly these pictures are there, finished and unchanged."""
        record = self.record()
        return (
            record is not None
            and is_same(settings, record)
            and record["count"] == count
            and not record.get("unfinished")
            and not self.uncovered(record)
            and all(self.is_intact(record, name) for name in names_of(record))
        )

    @contextmanager
    def drawing(self, settings: Mapping[str, Any], about: Mapping[str, Any], count: int) -> Iterator[Drawing]:
        """Begin or continue the pictures 0 ... count - 1 of these settings; `about` joins the record.

        UserError where another process draws here, or something is there that no record covers.
        """
        self.check()
        with locked(self.root / JOURNAL) as journal:
            clear_abandoned(self.root)
            kept, nfe = self._keep(settings, count)
            record = {**about, **settings, "count": count, "nfe": nfe, "files": kept}
            write_json(self.root / RECORD, {**record, "unfinished": True})
            journal.truncate(0)
            drawing = Drawing(self, record, journal)
            yield drawing
            write_json(self.root / RECORD, drawing.record)
            (self.root / JOURNAL).unlink(missing_ok=True)

    def _keep(self, settings: Mapping[str, Any], count: int) -> tuple[dict[str, str], int]:
        """Pictures of these settings that are there, and their evaluations; the others that are there are removed."""
        record = self.record()
        if record is None:
            return {}, 0
        there = [name for name in names_of(record) if (self.root / name).exists()]
        wanted = {picture_name(number) for number in range(count)} if is_same(settings, record) else set()
        kept = [name for name in there if name in wanted and self.is_intact(record, name)]
        if removed := sorted({*there} - {*kept}):
            write_json(self.root / RECORD, {**record, "unfinished": True})
            with disk_errors_explained(self.root):
                for name in removed:
                    (self.root / name).unlink(missing_ok=True)
        return {name: sha256_of(self.root / name) for name in kept}, record.get("nfe", 0) if kept else 0


@dataclass(frozen=True)
class Drawing:
    """A set of pictures while it is being drawn."""

    folder: SampleFolder
    record: Record
    journal: BinaryIO

    @property
    def missing(self) -> list[int]:
        """Numbers of the pictures that are still to be drawn."""
        return [
            number
            for number in range(self.record["count"])
            if picture_name(number) not in self.record["files"]
        ]

    def add(
        self, numbers: Sequence[int], images: Float[Tensor, "batch channels height width"], nfe: int
    ) -> None:
        """Write a batch of pictures, then its line in the journal."""
        files = save_pictures(images, self.folder.root, numbers)
        with disk_errors_explained(self.folder.root):
            self.journal.write(json.dumps({"files": files, "nfe": nfe}).encode() + b"\n")
            self.journal.flush()
        self.record["files"].update(files)
        self.record["nfe"] = max(self.record["nfe"], nfe)


def check_recorded(folder: Path) -> None:
    """UserError if the pictures below a folder are not exactly those that its samples.json lists, as they were written.

    Folders without a record of lediflow.sample pass.
    """
    samples = SampleFolder(folder)
    record = samples.record()
    if record is None:
        return
    names = names_of(record)
    there = [name for name in names if (folder / name).is_file()]
    if record.get("unfinished") or len(there) < len(names):
        raise UserError(
            f"{folder} is unfinished: {len(there)} of the {len(names)} pictures of its {RECORD} are there; run the "
            "same lediflow.sample command again, which draws the missing ones"
        )
    below = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    if extra := sorted({name for name in below if is_picture_name(name)} - {*names}):
        raise UserError(
            f"{folder} holds pictures that its {RECORD} does not list ({named(extra)}): they are of something else; "
            f"remove them, or remove {RECORD} if all are to be measured"
        )
    if changed := [name for name in names if not samples.is_intact(record, name)]:
        raise UserError(
            f"{folder} holds pictures that were changed after lediflow.sample wrote them ({named(changed)}); run the "
            f"same command again to draw them anew, or remove {RECORD} to measure them as they are"
        )


def names_of(record: Record) -> list[str]:
    return [picture_name(number) for number in range(record["count"])]


def is_same(settings: Mapping[str, Any], record: Record) -> bool:
    """Whether a record is of these settings."""
    return json.loads(json.dumps(settings)).items() <= record.items()


def journal_lines(path: Path) -> Iterator[Record]:
    """The whole lines of a journal; the last one may be torn, and what is no line of a journal is passed over."""
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(RecordError):
            line = as_record(parse_json(text, str(path), AGAIN), str(path), AGAIN, LINE_TYPES)
            yield {key: line[key] for key in LINE_TYPES}


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """A file open for appending, which no other process has locked; the lock ends with the process.

    UserError where another process has it. File systems without locks do without.
    """
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
        while not _is_locked(stream, path):  # its owner has removed it meanwhile
            stream.close()
            stream = path.open("ab")
    with stream:
        yield stream


def _is_locked(stream: BinaryIO, path: Path) -> bool:
    """Lock the stream; False where `path` is another file by now."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another lediflow.sample is drawing into {path.parent}; wait for its end, or choose another output"
        ) from error
    except OSError:
        return True
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
