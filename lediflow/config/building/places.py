"""Finds the parent of a run by the hash of its weights, also after folders were moved.

An export records its parent's absolute path and its path relative to the run's folder. Exports of earlier releases have
the path as typed, relative to an unknown working folder. All are tried, from the run's folder and from the folders
above it; the first folder whose weights have the recorded SHA-256 is the parent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lediflow.errors import UserError
from lediflow.records import RecordError
from lediflow.run_folder import RunFolder

NAMED = 4  # how many places an error message lists


def absolute(path: str | Path) -> Path:
    """The absolute path without ".."; symbolic links are not resolved."""
    return Path(os.path.normpath(Path(path).absolute()))


def stored_path(path: str | Path) -> str:
    """The form of a path in records: absolute if it exists; URLs and names on a hub are kept unchanged."""
    return str(absolute(path) if os.path.lexists(path) else path)


def parent_record(path: Path, sha256: str, run: Path) -> dict[str, str]:
    """The record of the parent in the export of `run`."""
    parent = str(absolute(path))
    return {"path": parent, "sha256": sha256, "from_run": os.path.relpath(parent, absolute(run))}


def find_parent(runs: Mapping[Path, Mapping[str, Any]], sha256: str) -> RunFolder:
    """The auxiliary run with these weights; `runs` maps run folders to their records of the parent.

    Raises UserError, with the places that were tried, if none of them has the weights.
    """
    places = list(
        dict.fromkeys(place for run, record in runs.items() for place in parent_places(run, record))
    )
    found: dict[Path, str] = {}
    for place in places:
        folder = RunFolder(place)
        if not folder.is_exported:
            continue
        found[place] = weights_of(folder)
        if found[place] == sha256:
            return folder
    raise UserError(not_found(runs, sha256, places, found))


def weights_of(folder: RunFolder) -> str:
    """The SHA-256 of the exported weights; "none" if it cannot be read."""
    try:
        return folder.weights_hash()
    except RecordError:
        return "none"


def parent_places(run: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Folders where the parent may be, the likeliest first."""
    stored = Path(record["path"])
    if stored.is_absolute():
        yield stored
    for base in (absolute(run), run.resolve()):
        for folder in (base, *base.parents):
            if "from_run" in record:
                yield absolute(folder / record["from_run"])
    if not stored.is_absolute():
        yield absolute(stored)
    parts = [part for part in stored.parts if part not in (stored.anchor, ".", "..")]
    for base in (absolute(run), run.resolve()):
        for folder in base.parents:
            for first in range(len(parts)):
                yield folder.joinpath(*parts[first:])


def not_found(
    runs: Mapping[Path, Mapping[str, Any]], sha256: str, places: list[Path], found: Mapping[Path, str]
) -> str:
    """The error message: what was searched for, where, what was found there, and what to do."""
    run, record = next(iter(runs.items()))
    name = Path(record["path"]).name
    reasons = [f"{place} has other weights ({weights[:12]})" for place, weights in found.items()]
    reasons += [f"there is no exported run in {place}" for place in places if place not in found]
    more = f"; {len(reasons) - NAMED} more places" if len(reasons) > NAMED else ""
    beside = absolute(run).parent / name
    return (
        f"run={run} was trained on the auxiliary model {record['path']} (weights {sha256[:12]}), which was not "
        f"found: {'; '.join(reasons[:NAMED])}{more}. Put the run folder with these weights, or a symbolic link to it, "
        f"at {beside}; if they are lost, train {run} again"
    )
