"""Writes run folders without a training: event logs with chosen times, in minutes since the start, and exports."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lediflow.run_folder import RunFolder

START = datetime(2026, 3, 1, tzinfo=UTC)


class EventLog:
    """RUN/events.jsonl; `minutes` is when the next event happens."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.minutes = folder / "events.jsonl", 0.0

    def event(self, name: str, images_seen: int, **values: Any) -> None:
        time = (START + timedelta(minutes=self.minutes)).isoformat()
        line = {"time": time, "event": name, "images_seen": images_seen, **values}
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def train(self, *places: int, scale: float = 1.0, **values: Any) -> None:
        """An event `train` each minute; the loss is a function of the place."""
        for images_seen in places:
            self.minutes += 1
            self.event("train", images_seen, loss=scale / images_seen, **values)


def requeued_twice(folder: Path) -> EventLog:
    """Crashes at 150 images and resumes at 100, twice; the second attempt has other losses than the two others."""
    log = EventLog(folder)
    log.event("start", 0, ranks=2, job="17", restart=0, commit="c0", host="n1")
    log.train(*range(10, 160, 10))
    log.minutes = 200
    log.event("resume", 100, ranks=2, job="17", restart=1, commit="c0", host="n2")
    log.train(*range(110, 160, 10), scale=50.0)
    log.minutes = 400
    log.event("resume", 100, ranks=2, job="17", restart=2, commit="c1", host="n1")
    log.train(*range(110, 210, 10))
    return log


def export(folder: RunFolder, content: bytes, **facts: Any) -> None:
    """RUN/export as after 200 images, with other facts where given."""
    folder.export.mkdir(parents=True)
    (folder.export / "model.safetensors").write_bytes(content)
    known = {"weights_sha256": folder.weights_hash(), "images_seen": 200}
    (folder.export / "config.json").write_text(json.dumps(known | facts))
