"""Run folders with an event log whose times the test chooses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

BEGUN = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

Entry = tuple[float, str, int, dict[str, Any]]  # seconds by the machine's clock, event, images seen, values


def write_events(path: Path, entries: Iterable[Entry]) -> Path:
    """An event log with these events."""
    lines = [
        json.dumps(
            {
                "time": (BEGUN + timedelta(seconds=seconds)).isoformat(),
                "event": event,
                "images_seen": seen,
                **values,
            }
        )
        for seconds, event, seen, values in entries
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_run(
    root: Path, entries: Iterable[Entry], *, stage: str = "flow", prior: str = "learned", options: str = ""
) -> Path:
    """A finished run with an export, a log and, if given, options as YAML."""
    (root / "export").mkdir(parents=True)
    facts = {"stage": stage, "prior": prior, "data": {"held_out_fraction": 0.1}}
    (root / "export" / "config.json").write_text(json.dumps(facts))
    write_events(root / "events.jsonl", entries)
    if options:
        (root / "config.yaml").write_text(options)
    return root


def windows(
    count: int, images: int = 100, seconds: float = 10.0, since: float = 0.0, seen: int = 0
) -> list[Entry]:
    """Events `train` of equal windows after `since`, from `seen` images on."""
    return [
        (
            since + seconds * number,
            "train",
            seen + images * number,
            {"loss": 1 / number, "images_per_second": images / seconds},
        )
        for number in range(1, count + 1)
    ]
