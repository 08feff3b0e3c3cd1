"""Reads .wandb files with the tool of wandb itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple


class WrittenRun(NamedTuple):
    """The records of a .wandb file that tests look at."""

    path: Path
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    config: dict[str, Any]
    artifacts: list[dict[str, Any]]
    run: dict[str, Any]

    @property
    def files(self) -> Path:
        return self.path.parent / "files"


def offline_runs(run_folder: Path) -> list[Path]:
    return sorted(run_folder.glob("wandb/offline-run-*/run-*.wandb"))


def read_wandb_file(path: Path) -> WrittenRun:
    """What a .wandb file holds, in the order written."""
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", path]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in shown.splitlines()]
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record["type"], []).append(record[record["type"]])
    summary: dict[str, Any] = {}
    for record in found["summary"]:
        summary |= record["update"]
    return WrittenRun(
        path=path,
        rows=[record["item"] for record in found.get("history", [])],
        summary=summary,
        config={key: value for record in found["run"] for key, value in record["config"]["update"].items()},
        artifacts=found.get("artifact", []),
        run=found["run"][0],
    )
