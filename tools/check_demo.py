"""Check the folder of a finished demo: exit 1 with a list of what is missing, not finite or constant."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo import EDITS
from lediflow.evaluation.metrics import METRICS

COUNT = 64
LARGEST_LINE_ERROR = 1e-4  # rounding of float32 over a few steps


def faults(folder: Path) -> list[str]:
    return [
        *report_faults(folder / "report.html"),
        *sample_faults(folder / "flow" / "samples"),
        *metric_faults(folder),
        *edit_faults(folder),
    ]


def report_faults(page: Path) -> list[str]:
    """Faults of the report: it must exist, be complete and need no network."""
    if not page.is_file():
        return [f"{page} is missing"]
    text = page.read_text(encoding="utf-8")
    found = [
        f"{page} loads {kind} from elsewhere"
        for kind in ('src="http', 'href="http', "@import")
        if kind in text
    ]
    return found + (
        [] if text.rstrip().endswith("</html>") and len(text) > 100_000 else [f"{page} is not whole"]
    )


def sample_faults(folder: Path) -> list[str]:
    files = sorted(folder.glob("*.png"))
    if len(files) != COUNT:
        return [f"{folder} holds {len(files)} pictures, not {COUNT}"]
    pictures = np.stack([np.asarray(Image.open(path)) for path in files]).astype(float)
    flat = [path.name for path, picture in zip(files, pictures, strict=True) if picture.std() < 1]
    same = pictures.std(axis=0).mean() < 1
    return [f"{folder}: constant pictures {flat}"] * bool(flat) + [f"{folder}: all pictures alike"] * bool(
        same
    )


def metric_faults(folder: Path) -> list[str]:
    found = []
    for run in ("flow", "baseline"):
        path = folder / run / "results" / "results.json"
        if not path.is_file():
            found.append(f"{path} is missing")
            continue
        rows: list[dict[str, Any]] = json.loads(path.read_text())["results"]["rows"]
        distances = [metric.shown_key for metric in METRICS.values() if metric.direction == "lower"]
        scores = [metric.shown_key for metric in METRICS.values() if metric.direction == "higher"]
        for key in (*distances, *scores, "ms_per_image"):
            values = [row.get(key, math.nan) for row in rows]
            if not all(math.isfinite(value) for value in values):
                found.append(f"{path}: {key} is missing or not finite: {values}")
            elif key not in scores and len(set(values)) < len(rows):  # scores may be 0 or 1 in several rows
                found.append(f"{path}: {key} is the same for different numbers of steps: {values}")
    return found


def edit_faults(folder: Path) -> list[str]:
    """Faults of the edits: likelihoods that are not finite, and kept pixels that left their line."""
    found = []
    for name in EDITS:
        path = folder / name / "edit.json"
        if not path.is_file():
            found.append(f"{path} is missing")
            continue
        record: dict[str, Any] = json.loads(path.read_text())
        likelihoods = [
            value for way in record.get("ways", {}).values() for values in way.values() for value in values
        ]
        if not all(map(math.isfinite, likelihoods)):
            found.append(f"{path}: numbers that are not finite: {likelihoods}")
        if not record.get("line_error", 0.0) <= LARGEST_LINE_ERROR:
            found.append(f"{path}: line_error is {record['line_error']}, above {LARGEST_LINE_ERROR}")
    return found


if __name__ == "__main__":
    problems = faults(Path(sys.argv[1]))
    print("\n".join(problems) or f"{sys.argv[1]}: report, samples, metrics and edits are all there")
    sys.exit(bool(problems))
