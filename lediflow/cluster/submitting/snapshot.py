"""A copy of the code, made when a job is submitted: edits in the checkout do not change what is queued.

Copies are named by their content, so that jobs of the same code share one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import lediflow
from lediflow.cluster.jobs import JOBS

FOLDERS = ("lediflow", "conf")  # the package, and the YAML files beside it in a checkout


def take_snapshot(runs: Path, root: Path | None = None) -> Path:
    """The folder to put on PYTHONPATH. `root` holds the package: by default the one that runs now."""
    root = root or Path(lediflow.__file__).parent.parent
    files = {path.relative_to(root): path.read_bytes() for path in sorted(code_files(root))}
    target = runs.absolute() / JOBS / ".code" / content_hash(files)
    if not target.is_dir():
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        for path, content in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_bytes(content)
        _move(partial, target)
    return target


def code_files(root: Path) -> Iterator[Path]:
    """Every file of the package and its configuration, without what Python makes of them."""
    for folder in FOLDERS:
        if (root / folder / "__init__.py").is_file() or (root / folder / "train.yaml").is_file():
            yield from (
                path
                for path in (root / folder).rglob("*")
                if path.is_file() and "__pycache__" not in path.parts
            )


def content_hash(files: dict[Path, bytes]) -> str:
    digest = hashlib.sha256()
    for path, content in files.items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _move(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial)
        if not target.is_dir():  # nobody else has made the same one meanwhile
            raise
