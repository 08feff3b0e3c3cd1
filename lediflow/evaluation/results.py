"""Results as JSON, each with the birth certificate of its numbers, and fingerprints of what they were computed from.

A certificate has the command, commit, seed, hardware, date and package versions: enough to trust a number, and to
measure it again. A fingerprint is a record of all that a set of numbers depends on, and a short hash of it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lediflow
from lediflow.claims import claim_folder, visible_names
from lediflow.disk import hash_key, whole_or_absent
from lediflow.errors import UserError
from lediflow.records import Record, RecordError, leaves, object_if_any, read_record
from lediflow.tracking.session import commit

SCHEMA_VERSION = 1
ROW_AGAIN = "delete it, and the same command measures the row again"
AGAIN = "delete it and run `python -m lediflow.evaluate` to make it again"
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
MOST_LABELS = 5  # that a label of a row lists
GUIDANCE = ("guidance", "latent_guidance")
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
    """The certificate of a number that this process measures now."""
    return {
        "command": shlex.join(command or command_words()),
        "commit": commit(),
        "seed": seed,
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def command_words() -> list[str]:
    """The command line of this process without the path of the interpreter, which differs between machines."""
    return ["python", *sys.orig_argv[1:]]


def hardware() -> dict[str, Any]:
    """Processor, cores, GPUs and system that the process could use."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor_name(),
        "cores": cores,
        "gpus": gpus,
        "system": platform.platform(terse=True),
    }


def processor_name() -> str:
    """The processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python, this package, and the installed packages that numbers depend on."""
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
    """Write results with their certificate; the file is whole or absent. UserError if it cannot be written.

    is_slim=True writes each row on one line, which keeps files with hundreds of rows readable.
    """
    path = Path(path)
    document = {"schema_version": SCHEMA_VERSION, "certificate": certificate, "results": results}
    text = json.dumps(document, indent=1 if is_slim else 2, ensure_ascii=False)
    if is_slim:  # in JSON, line breaks occur only between values
        text = INNERMOST.sub(lambda found: LINE_BREAK.sub(" ", found[0]), text)
    with whole_or_absent(path) as stream:
        stream.write(f"{text}\n".encode())
    return path


def claim_results(folder: Path) -> None:
    """Create a folder for results; UserError if it holds files that lediflow.evaluate did not write."""
    claim_folder(folder, "output", "lediflow.evaluate", is_folder_of_results)


def is_folder_of_results(folder: Path) -> bool:
    """Whether lediflow.evaluate wrote this folder, or it holds nothing but folders with results of their own."""
    is_ours = "certificate" in object_if_any(folder / RESULTS) or any((folder / ROWS).glob("*.json"))
    return is_ours or {*visible_names(folder)} <= INNER


def read_row(path: Path, lacking: Collection[str] = ()) -> Record:
    """The row of a setting that an earlier command wrote; RecordError for any other file.

    `lacking`: keys of metrics that were taken out of the table, which rows do not have.
    """
    types = {key: kind for key, kind in ROW_TYPES.items() if key.removesuffix("_name") not in lacking}
    return read_record(path, ROW_AGAIN, types, is_complete=True)


def read_results(path: str | Path) -> Record:
    """Read what `write_results` wrote: keys "results" and "certificate"; RecordError for any other file."""
    path = Path(path)
    document = read_record(path, AGAIN, TYPES)
    if document.get("schema_version") != SCHEMA_VERSION:
        raise RecordError(
            f"{path} is not a results file of version {SCHEMA_VERSION}; make it again with this release"
        )
    for key in ("results", "certificate"):
        document[key]  # RecordError if it is missing
    return document


def digest(record: dict[str, Any]) -> str:
    """Shortened SHA-256 of a record; independent of the order of its keys."""
    return hash_key(json.dumps(record, sort_keys=True))


def features_record(images: dict[str, Any], extractor: dict[str, Any], count: int) -> dict[str, Any]:
    """Fingerprint of a feature set: the images, the extractor, the number of images."""
    return {"images": images, "extractor": extractor, "count": count}


def sampling_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a row's images were sampled with, by option; empty for pictures of a folder."""
    return dict(((row.get("record") or {}).get("images") or {}).get("sampling") or {})


def classes_text(row: Mapping[str, Any]) -> str:
    """The classes that a row's images are of, and their guidance, as an addition to a label; "" without classes."""
    asked = sampling_of(row)
    labels = asked.get("labels") or []
    if not labels:
        return ""
    classes = " ".join(map(str, labels)) if len(labels) <= MOST_LABELS else f"{len({*labels})} classes"
    scales = [f", {name.replace('_', ' ')} {asked[name]:g}" for name in GUIDANCE if asked.get(name, 1) != 1]
    return f", labels {classes}{''.join(scales)}"


def refuse_other(found: dict[str, Any], asked: dict[str, Any], path: Path) -> None:
    """UserError with both fingerprints and their differences, unless they are equal."""
    if found == asked:
        return
    there, wanted = dict(leaves(found)), dict(leaves(asked))
    keys = [key for key in {**there, **wanted} if there.get(key) != wanted.get(key)]
    differences = "; ".join(f"{key}: {there.get(key)!r} there, {wanted.get(key)!r} requested" for key in keys)
    raise UserError(
        f"{path} was made from something else: fingerprint {digest(found)} there, {digest(asked)} requested "
        f"({differences}); give another file, or remove this one to have it made again"
    )
