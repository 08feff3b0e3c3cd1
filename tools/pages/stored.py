"""Reading of results files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Results = dict[str, Any]
CAMPAIGN = Path("results/campaign")


def bench(name: str) -> Path:
    """Where the results of a benchmark are, from the top."""
    return Path("results") / f"{name}.json"


def document(path: Path) -> Results:
    """A results file."""
    found: Results = json.loads(path.read_text())
    return found


def results(path: Path) -> Results:
    """The numbers of a results file, without its certificate."""
    found: Results = document(path)["results"]
    return found
