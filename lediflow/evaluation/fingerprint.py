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


def features_record(images: dict[str, Any], extractor: dict[str, Any], count: int) -> dict[str, Any]:
    """What features are of: the images, the extractor that saw them, how many there are."""
    return {"images": images, "extractor": extractor, "count": count}


def refuse_other(found: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """Statistics of something else than what is asked about are of no use: say what differs, and both fingerprints."""
    if found == asked:
        return
    there, wanted = flat(found), flat(asked)
    keys = [key for key in {**there, **wanted} if there.get(key) != wanted.get(key)]
    told = "; ".join(f"{key}: {there.get(key)!r} there, {wanted.get(key)!r} asked" for key in keys)
    raise UserError(
        f"{path} is of something else: fingerprint {digest(found)} there, {digest(asked)} asked ({told}); give another "
        "file, or remove this one to have it made again"
    )


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
