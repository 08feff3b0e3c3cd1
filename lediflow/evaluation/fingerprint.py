"""What a set of numbers is of, as a record that can be compared, and in a few letters."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lediflow.errors import UserError

LETTERS = 16  # of a digest: enough to tell sets apart, few enough to read


def digest(record: dict[str, Any]) -> str:
    """The record's SHA-256, shortened; equal records have equal ones, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:LETTERS]


def refuse_other(found: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Statistics of something else than what is asked about are of no use: say what differs, and both fingerprints."""
    if found == asked:
        return
    keys = [key for key in {**found, **asked} if found.get(key) != asked.get(key)]
    told = "; ".join(f"{key}: {found.get(key)!r} there, {asked.get(key)!r} asked" for key in keys)
    raise UserError(
        f"{path} is of something else: fingerprint {digest(found)} there, {digest(asked)} asked ({told}); give another "
        "file, or remove this one to have it made again"
    )
