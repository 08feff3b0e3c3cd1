"""Training and held-out losses of the runs that a chain is made of, from their event logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lediflow.tracking.event_log import curve

TAIL = 0.1  # share of the points, at least one, that the last training loss is the mean of


def run_losses(events: Path) -> dict[str, Any]:
    """The last losses, and the lowest held-out loss with the images seen then; empty without losses in the log."""
    training, held_out = curve(events, "train", "loss"), curve(events, "validation", "loss")
    found: dict[str, Any] = {}
    if len(training.values):
        last = max(1, round(TAIL * len(training.values)))
        found["training"] = float(training.values[-last:].mean())
        found["images_seen"] = int(training.images_seen[-1])
    if len(held_out.values):
        place = int(held_out.values.argmin())
        found["held_out"] = float(held_out.values[-1])
        found["held_out_minimum"] = float(held_out.values[place])
        found["held_out_minimum_at"] = int(held_out.images_seen[place])
    return found
