"""The output of anonymisation, photograph by photograph: a killed command continues where it was.

PROGRESS, a hidden file, gets a line when a photograph is done, with a keyed digest of everything that its result
depends on. The next start keeps results whose digest and file are unchanged, and makes the others. edit.json is written
at the beginning, as unfinished, and at the end in full; then PROGRESS goes, and a further start reads edit.json.
No file names a photograph, a person, the key or a path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lediflow.claims import claim_folder
from lediflow.disk import clear_abandoned, sha256_of, whole_or_absent, write_json
from lediflow.editing.folder import RECORD
from lediflow.errors import disk_errors_explained
from lediflow.records import object_if_any
from lediflow.sampling.pictures import picture_name

PROGRESS = ".anonymised.jsonl"
Row = dict[str, Any]  # of one photograph, in edit.json


class AnonymisedFolder:
    """Results on disk. UserError if the folder is not ours, or cannot be written."""

    def __init__(self, root: Path, record: Row, count: int) -> None:
        self.root = root
        self.record = record
        claim_folder(root, "output", "lediflow.edit", lambda folder: (folder / RECORD).is_file())
        clear_abandoned(root)
        before = object_if_any(root / RECORD)
        self.old = {name for name in before.get("files", {}) if Path(name).name == name}
        self.rows: dict[int, Row] = {}
        self.kept = 0
        self.earlier = {row["digest"]: row for row in [*rows_of(before), *self.progress()]}
        names = sorted(self.old | {picture_name(number) for number in range(count)})
        write_json(root / RECORD, {**record, "files": dict.fromkeys(names), "unfinished": True})

    def earlier_row(self, digest: str) -> Row | None:
        """The row of a photograph with this digest whose result is there already, unchanged."""
        row = self.earlier.get(digest)
        if row is None or not is_intact(self.root / row["file"], row["sha256"]):
            return None
        self.kept += 1
        return row

    def write_picture(self, number: int, content: bytes) -> str:
        """Write a result; returns its name."""
        name = picture_name(number)
        with whole_or_absent(self.root / name, is_flushed=False) as stream:
            stream.write(content)
        return name

    def add(self, row: Row) -> None:
        """Note that a photograph is done."""
        self.rows[row["number"]] = row
        with disk_errors_explained(self.root), (self.root / PROGRESS).open("a") as stream:
            stream.write(json.dumps(row, sort_keys=True) + "\n")

    def finish(self, result: Row) -> None:
        """Remove the files of earlier edits that are not results of this one, and write edit.json."""
        rows = [self.rows[number] for number in sorted(self.rows)]
        files = {row["file"]: row["sha256"] for row in rows if row["file"] is not None}
        with disk_errors_explained(self.root):
            for name in {*self.old, *map(picture_name, self.rows)} - {*files}:
                (self.root / name).unlink(missing_ok=True)
        write_json(self.root / RECORD, {**self.record, **result, "photographs": rows, "files": files})
        with disk_errors_explained(self.root):
            (self.root / PROGRESS).unlink(missing_ok=True)

    def progress(self) -> Iterator[Row]:
        """The lines of a start that was killed; the last may be cut."""
        try:
            lines = (self.root / PROGRESS).read_text().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if is_row(row):
                yield row


def rows_of(record: Row) -> list[Row]:
    """The photographs in an edit.json; none if another edit wrote it."""
    rows = record.get("photographs", [])
    return [row for row in rows if is_row(row)] if isinstance(rows, list) else []


def is_row(row: Any) -> bool:
    """Whether a line is of a photograph with a result."""
    return isinstance(row, dict) and all(
        isinstance(row.get(name), str) for name in ("digest", "file", "sha256")
    )


def is_intact(path: Path, sha256: str) -> bool:
    """Whether a file is there and unchanged."""
    return path.is_file() and sha256_of(path) == sha256
