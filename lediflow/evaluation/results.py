"""Results as JSON, each with the birth certificate of its numbers.

A certificate says which command, commit, seed, hardware, date and package versions a number came from:
enough to believe it, and to make it again.

What a set of numbers is of, as a record that can be compared, and in a few letters.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lediflow
from lediflow.claims import claim_folder, visible_names
from lediflow.disk import whole_or_absent
from lediflow.errors import UserError
from lediflow.records import Record, RecordError, object_if_any, read_record

SCHEMA_VERSION = 1
AGAIN = "delete it and run `python -m lediflow.evaluate` to make it anew"
TYPES = {
    "results": {
        "rows": list[dict[str, Any]],
        "real_mmd": float | None,
        "codec_floor": {"mmd_unbiased": float},
    },
    "certificate": {
        "hardware": {"processor": str, "gpus": list[str], "system": str},
        "versions": dict[str, str],
        "commit": str,
        "date": str,
    },
}
RESULTS, ROWS = "results.json", "rows"  # in a folder of results
INNER = {"prior", "checkpoints", "export", "stages"}  # folders inside it that are not its own
ROW_TYPES = {
    "solver": str,
    "steps": int,
    "temperature": float,
    "nfe": float,
    "ms_per_image": float,
    "mmd_name": str,
    "mmd_unbiased": float,
    "mmd_interval": list[float],
    "frechet_name": str,
    "frechet": float,
    "sample_images": int,
}
INNERMOST, LINE_BREAK = re.compile(r"\{[^{}\[\]]*\}"), re.compile(r"\n *")
RECORDED_PACKAGES = ("torch", "numpy", "natten", "deepspeed", "diffusers", "open_clip_torch", "webdataset")


def birth_certificate(*, seed: int | None, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Where a number measured now, by this process, comes from."""
    return {
        "command": shlex.join(command or this_command()),
        "commit": commit(),
        "seed": seed,
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def this_command() -> list[str]:
    """The command line of this process, with the interpreter's path left out: it is nobody else's."""
    return ["python", *sys.orig_argv[1:]]


def commit() -> str:
    """The commit of the running code, "-dirty" if files differ from it.

    Outside a checkout, as in a container, what LEDIFLOW_COMMIT says; else the release.
    """
    folder = Path(lediflow.__file__).parent
    git = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("LEDIFLOW_COMMIT") or f"release {lediflow.__version__}"


def hardware() -> dict[str, Any]:
    """What the process could use."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor_name(),
        "cores": cores,
        "gpus": gpus,
        "system": platform.platform(terse=True),
    }


def processor_name() -> str:
    """The processor as its maker calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Python, this package, and the packages that numbers depend on, where installed."""
    found = {"python": platform.python_version(), "lediflow": lediflow.__version__}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_results(
    path: str | Path, results: dict[str, Any], certificate: dict[str, Any], *, is_slim: bool = False
) -> Path:
    """Write results with their certificate; the file is whole or absent. UserError where it cannot be written.

    is_slim=True gives each row a line, so that a file with hundreds of them can be read and kept.
    """
    path = Path(path)
    document = {"schema_version": SCHEMA_VERSION, "certificate": certificate, "results": results}
    text = json.dumps(document, indent=1 if is_slim else 2, ensure_ascii=False)
    if is_slim:  # line breaks of JSON stand between its values only
        text = INNERMOST.sub(lambda found: LINE_BREAK.sub(" ", found[0]), text)
    with whole_or_absent(path) as stream:
        stream.write(f"{text}\n".encode())
    return path


def claim_results(folder: Path) -> None:
    """Make a folder for results; UserError where it holds files that lediflow.evaluate did not write."""
    claim_folder(folder, "output", "lediflow.evaluate", is_folder_of_results)


def is_folder_of_results(folder: Path) -> bool:
    """Whether earlier releases wrote here, or nothing is there but folders that have results of their own."""
    is_ours = "certificate" in object_if_any(folder / RESULTS) or any((folder / ROWS).glob("*.json"))
    return is_ours or {*visible_names(folder)} <= INNER


def read_row(path: Path) -> Record:
    """One setting's row, kept by an earlier start; RecordError where it is none."""
    row = read_record(path, "delete it, and the same command measures the row anew", ROW_TYPES)
    for key in ROW_TYPES:
        row[key]  # refused where it is missing
    return row


def read_results(path: str | Path) -> Record:
    """The document that `write_results` wrote, keys "results" and "certificate"; RecordError where it is none."""
    path = Path(path)
    document = read_record(path, AGAIN, TYPES)
    if document.get("schema_version") != SCHEMA_VERSION:
        raise RecordError(
            f"{path} is not a results file of version {SCHEMA_VERSION}; make it again with this release"
        )
    for key in ("results", "certificate"):
        document[key]  # refused where it is missing
    return document


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
