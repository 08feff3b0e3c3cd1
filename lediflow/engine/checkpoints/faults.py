"""Whether a checkpoint is whole: exactly the files of its manifest, bit for bit, and together the whole state.

A fault is a phrase for a message, "slice-00000-of-00002.safetensors is missing". Nothing that stands in the folder
raises: what cannot be read is a fault too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors import SafetensorError

from lediflow.engine.checkpoints.slices import SlicedState, slice_name
from lediflow.records import UNREADABLE

PROGRESS, MANIFEST, MODEL = "progress.json", "manifest.json", "model.safetensors"
SUMS = "sha256"  # the manifest's key
HASHING_THREADS = 8


def find_fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sums = _sums_of(path)
        return _wrong_names(path, sums) or _wrong_sums(path, sums) or _wrong_state(path)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error})"


def _sums_of(path: Path) -> dict[str, str]:
    try:
        sums = json.loads((path / MANIFEST).read_text())[SUMS]
    except (OSError, *UNREADABLE, KeyError, TypeError) as error:
        raise ValueError(f"its {MANIFEST} cannot be read ({error})") from error
    if not isinstance(sums, dict):
        raise ValueError(f"its {MANIFEST} names no files")
    return sums


def _wrong_names(path: Path, sums: Mapping[str, str]) -> str | None:
    slices = [name for name in sums if name.startswith("slice-")]
    expected = {PROGRESS, MODEL, *(slice_name(rank, len(slices)) for rank in range(len(slices)))}
    if not slices or sums.keys() != expected:
        return f"its {MANIFEST} names {', '.join(sorted(sums)) or 'nothing'}: no state of {len(slices)} ranks"
    found = {entry.name for entry in path.iterdir() if not is_a_visitors(entry.name)} - {MANIFEST}
    if missing := sorted(sums.keys() - found):
        return f"{missing[0]} is missing"
    if unknown := sorted(found - sums.keys()):
        return f"{unknown[0]} is not in its {MANIFEST}"
    return None


def is_a_visitors(name: str) -> bool:
    """Files that desktops and file systems leave in any folder: .DS_Store, .snapshot, .nfs0001."""
    return name.startswith(".")


def _wrong_sums(path: Path, sums: Mapping[str, str]) -> str | None:
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        found = dict(zip(sums, pool.map(lambda name: sha256_of(path / name), sums), strict=True))
    if altered := [name for name, expected in sums.items() if found[name] != expected]:
        return f"{altered[0]} does not match its SHA-256 (truncated or altered)"
    return None


def _wrong_state(path: Path) -> str | None:
    """Sums that fit say that nothing changed since it was written, not that it was written well."""
    try:
        SlicedState(sorted(path.glob("slice-*.safetensors")))
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return f"its slices are no state ({error})"
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
