"""stages.json: the numbers of `mode=stages` with their birth certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lediflow.disk import whole_or_absent
from lediflow.evaluation.results import AGAIN
from lediflow.records import Record, RecordError, read_record

STAGES = "stages.json"
VERSION = 1
TYPES = {
    "rows": list[dict[str, Any]],
    "losses": dict[str, Any],
    "verdict": {"limits": str, "text": str},
}


def write_stages(path: Path, results: dict[str, Any], certificate: dict[str, Any]) -> None:
    """The file is whole or absent; UserError where it cannot be written."""
    document = {"schema_version": VERSION, "certificate": certificate, **results}
    with whole_or_absent(path) as stream:
        stream.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def read_stages(path: Path) -> Record:
    """Read what `write_stages` wrote; RecordError for any other file."""
    document = read_record(path, AGAIN, TYPES)
    if document.get("schema_version") != VERSION:
        raise RecordError(f"{path} is not a file of stages of version {VERSION}; {AGAIN}")
    return document
