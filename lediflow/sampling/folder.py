"""Folder of generated images and its record, which are consistent at any time, also after kill -9.

samples.json       settings, count, SHA-256 of every picture; "unfinished": true until all are written
.samples.journal   while a command runs: one line per finished batch; locked by that command

The record is written, as unfinished, before the first picture, and lists every picture in the folder: pictures of other
settings are removed before it changes. An interrupted command can be continued, because image i depends only on the
weights, the seed and i. Pictures that the record does not list are neither overwritten nor evaluated.
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
from lediflow.disk import clear_abandoned, sha256_of, write_json
from lediflow.errors import UserError, disk_errors_explained
from lediflow.records import RecordError, as_record, changes, parse_json, read_record
from lediflow.sampling.pictures import picture_name, save_pictures

RECORD, JOURNAL = "samples.json", ".samples.journal"
MOST_IMAGES = 10_000_000  # per folder, because all names and hashes are held in memory
AGAIN = "remove it and the pictures next to it, and draw them again"
LINE_TYPES = {"files": dict[str, str], "nfe": float}
TYPES = {**LINE_TYPES, "count": int, "weights": dict[str, Any]}

Record = dict[str, Any]


@dataclass(frozen=True)
class SampleFolder:
    """A folder of generated images."""

    root: Path

    def record(self) -> Record | None:
        """samples.json with the pictures of the journal; None if there is no record of lediflow.sample.

        Raises RecordError if it is an empty object: the origin of the pictures next to it is unknown.
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
        found.setdefault("precision", "float32")  # of all images before it was an option
        if found.get("unfinished"):
            for line in journal_lines(self.root / JOURNAL):
                found["files"] = found.get("files", {}) | line["files"]
                found["nfe"] = max(found.get("nfe", 0), line["nfe"])
        return found

    def check(self) -> None:
        """UserError if the folder has files of another origin or pictures that the record does not list."""
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
        """Whether a listed picture exists unchanged; records of earlier releases have no hashes to compare."""
        path = self.root / name
        if "files" not in record:
            return path.is_file()
        return path.is_file() and record["files"].get(name) == sha256_of(path)

    def has_all(self, settings: Mapping[str, Any], count: int) -> bool:
        """Whether the folder has exactly the pictures of these settings, finished and unchanged."""
        record = self.record()
        return (
            record is not None
            and is_same(settings, record)
            and record["count"] == count
            and not record.get("unfinished")
            and not self.uncovered(record)
            and all(self.is_intact(record, name) for name in names_of(record))
        )

    def replaced(self, settings: Mapping[str, Any], count: int) -> str:
        """A sentence about the pictures that `drawing` would remove, with the reason; "" if there are none."""
        record = self.record()
        if record is None:
            return ""
        there = [
            (self.root / name).exists() for name in names_of(record)
        ]  # fewer than its count if it was killed
        if changed := changes(record, json.loads(json.dumps(settings))):
            return f"removing {sum(there)} images of other settings from {self.root} ({changed})"
        excess = sum(there[count:])
        return f"removing {excess} images beyond count={count} from {self.root}" if excess else ""

    @contextmanager
    def drawing(self, settings: Mapping[str, Any], about: Mapping[str, Any], count: int) -> Iterator[Drawing]:
        """Start or continue the pictures 0 ... count - 1 of these settings; `about` is added to the record.

        Raises UserError if another process is writing here, or as `check` does.
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
        """Pictures of these settings that exist (name -> SHA-256), and their nfe; other pictures are removed."""
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
    """A set of pictures that is being written."""

    folder: SampleFolder
    record: Record
    journal: BinaryIO

    @property
    def missing(self) -> list[int]:
        """Numbers of the pictures that do not exist yet."""
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
    """UserError if the pictures below a folder are not exactly those that its samples.json lists, unchanged.

    A folder without a record of lediflow.sample is accepted.
    """
    samples = SampleFolder(folder)
    record = samples.record()
    if record is None:
        return
    names = names_of(record)
    there = [name for name in names if (folder / name).is_file()]
    if record.get("unfinished") or len(there) < len(names):
        raise UserError(
            f"{folder} is unfinished: {len(there)} of the {len(names)} pictures of its {RECORD} exist; run the "
            "same lediflow.sample command again, which draws the missing ones"
        )
    below = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    if extra := sorted({name for name in below if is_picture_name(name)} - {*names}):
        raise UserError(
            f"{folder} holds pictures that its {RECORD} does not list ({named(extra)}), so their origin is unknown; "
            f"remove them, or remove {RECORD} if all are to be evaluated"
        )
    if changed := [name for name in names if not samples.is_intact(record, name)]:
        raise UserError(
            f"{folder} holds pictures that were changed after lediflow.sample wrote them ({named(changed)}); run the "
            f"same command again to draw them again, or remove {RECORD} to evaluate them as they are"
        )


def names_of(record: Record) -> list[str]:
    """File names of the pictures of a record."""
    return [picture_name(number) for number in range(record["count"])]


def is_same(settings: Mapping[str, Any], record: Record) -> bool:
    """Whether a record has these settings."""
    return json.loads(json.dumps(settings)).items() <= record.items()


def journal_lines(path: Path) -> Iterator[Record]:
    """The valid lines of a journal; an incomplete last line and other invalid lines are skipped."""
    for text in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(RecordError):
            line = as_record(parse_json(text, str(path), AGAIN), str(path), AGAIN, LINE_TYPES)
            yield {key: line[key] for key in LINE_TYPES}


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """Open a file for appending and lock it until the context or the process ends.

    Raises UserError if another process has the lock. On file systems without locks there is no lock.
    """
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab")
        while not _is_locked(stream, path):  # its owner removed it in the meantime
            stream.close()
            stream = path.open("ab")
    with stream:
        yield stream


def _is_locked(stream: BinaryIO, path: Path) -> bool:
    """Lock the stream; False if `path` has become another file in the meantime."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another lediflow.sample is drawing into {path.parent}; wait until it ends, or choose another output"
        ) from error
    except OSError:
        return True
    try:
        return os.fstat(stream.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
