"""Cache of measured routes, in the process and in a JSON file next to the compile cache.

The file is optional: if it cannot be read, routes are measured again; if it cannot be written, every process measures
for itself. Several processes may write it; each write replaces the file atomically, and the first result for a problem
is kept.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lediflow.caches import compile_cache
from lediflow.nn.neighborhood.protocol import Problem, Route
from lediflow.records import UNREADABLE

log = logging.getLogger(__name__)

Names = tuple[str, ...]  # of the routes in the table


@dataclass(frozen=True)
class RouteChoice:
    """The chosen route and the measured times."""

    route: str
    milliseconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        times = ", ".join(
            f"{name} {ms:.3g} ms" for name, ms in sorted(self.milliseconds.items(), key=lambda x: x[1])
        )
        return f"{self.route} ({times})"


def default_file() -> Path:
    """The cache file, next to compiled code."""
    return compile_cache() / "lediflow_attention_routes.json"


class RouteCache:
    """Cached choices by problem, for one table of routes: a choice is not used once a route is added to the table."""

    def __init__(self, file: Path, table: Mapping[str, Route]) -> None:
        self.file = file
        self.table = table
        self.choices: dict[tuple[Problem, Names], RouteChoice] = {}

    def recall(self, problem: Problem) -> RouteChoice | None:
        """The choice of this process, else that in the file; None if there is none."""
        names = tuple(self.table)
        if (problem, names) not in self.choices:
            entry = self._read().get(key(problem, names))
            if entry is not None:
                self.choices[problem, names] = RouteChoice(**entry)
        return self.choices.get((problem, names))

    def keep(self, problem: Problem, choice: RouteChoice) -> RouteChoice:
        """Store a choice and return it; if another process stored one first, return that."""
        names, entries = tuple(self.table), self._read()
        entry = entries.setdefault(key(problem, names), asdict(choice))
        self._write(entries)
        self.choices[problem, names] = RouteChoice(**entry)
        return self.choices[problem, names]

    def forget(self, problem: Problem) -> None:
        """Remove a choice that is not valid here."""
        names = tuple(self.table)
        self.choices.pop((problem, names), None)
        self._write({name: entry for name, entry in self._read().items() if name != key(problem, names)})

    def _read(self) -> dict[str, dict]:
        try:
            entries = json.loads(self.file.read_text())
            return {name: entry for name, entry in entries.items() if is_choice(entry)}
        except (OSError, *UNREADABLE, AttributeError):
            return {}

    def _write(self, entries: dict[str, dict]) -> None:
        new = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
            new.replace(self.file)
        except OSError as error:
            log.debug("%s: not written (%s); attention routes are measured by each process", self.file, error)


def is_choice(entry: object) -> bool:
    """Whether an entry of the file has the form of a choice."""
    match entry:
        case {"route": str(), "milliseconds": dict(times), **others}:
            return not others and all(isinstance(ms, int | float) for ms in times.values())
        case _:
            return False


def key(problem: Problem, routes: Names) -> str:
    """Key of a cache entry: the problem and all that its measurement depends on: routes, device's name and versions."""
    device = (
        torch.cuda.get_device_name(problem.device) if problem.device.type == "cuda" else problem.device.type
    )
    versions = f"torch {torch.__version__} | natten {installed_version('natten')}"
    return f"{problem} | {device} | {versions} | {', '.join(routes)}"


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
