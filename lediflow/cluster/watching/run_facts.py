"""Facts about a run from its folder: progress, whether a session is alive, and the error it failed with.

Whether a lease is still renewed is judged from the age of its file by the file system's own clock, which is read as the
modification time of a file made now. Clocks of two machines are never compared.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lediflow.cluster.watching.goodput import TrainingTime, training_time
from lediflow.engine.hang_detection import RankState
from lediflow.engine.lease import LeaseRecord, read_lease
from lediflow.records import Record, RecordError, read_record, typed
from lediflow.run_folder import RunFolder, has_ended, trained_images
from lediflow.tracking.event_log import BEGINNINGS, PICTURES, TURNED, Event, number, read_events, standing


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run; the defaults stand for a run that does not exist yet."""

    total_images: int | None = None  # requested: train.images
    exported_images: int | None = None  # images seen when the weights were exported
    is_finished: bool = False  # the facts in the export say that training has ended
    is_early: bool = False  # it ended by train.patience_images, before train.images
    events: list[Event] = field(default_factory=list)
    lease: LeaseRecord | None = None
    quiet_seconds: float = 0.0  # since the lease was last renewed
    failure: str = ""  # error of a rank in the last session

    @property
    def is_done(self) -> bool:
        if self.is_finished:
            return True
        return self.exported_images is not None and self.exported_images >= (self.total_images or 0)

    @property
    def is_alive(self) -> bool:
        """Whether a session is training in the folder."""
        lease = self.lease
        return lease is not None and not lease.is_over and self.quiet_seconds < lease.patience

    @property
    def images_seen(self) -> int | None:
        return self.events[-1]["images_seen"] if self.events else None

    @property
    def done(self) -> str:
        """Words for a finished run: `done`, or `done (patience)`."""
        return "done (patience)" if self.is_early else "done"

    @cached_property
    def remark(self) -> str:
        """The message that the held-out loss has turned; empty if it has not."""
        return turned_remark(standing(self.events))

    @property
    def newest_pictures(self) -> list[str]:
        """Files of the newest pictures made while training, relative to the run folder."""
        made = [event.get(PICTURES) for event in standing(self.events) if event["event"] == PICTURES]
        newest = made[-1] if made and isinstance(made[-1], dict) else {}
        return [
            str(about["file"]) for about in newest.values() if isinstance(about, dict) and "file" in about
        ]

    @property
    def images_per_second(self) -> float | None:
        """Speed in the last logged window of the current session."""
        for event in reversed(self.events):
            if event["event"] in BEGINNINGS:
                return None
            if event["event"] == "train":
                return number(event.get("images_per_second"))
        return None

    @cached_property
    def training_time(self) -> TrainingTime:
        return training_time(self.events)


def read_run(root: Path, now: float | None = None) -> RunFacts:
    """Read the facts of a run folder; `now` is the time by the file system's clock, see `file_system_time`."""
    folder = RunFolder(root)
    lease, renewed = lease_and_time(folder.lease)
    requested, patience = (requested_images(folder, name) for name in ("images", "patience_images"))
    facts = readable_facts(folder)
    is_finished = facts is not None and requested is not None and has_ended(facts, requested, patience)
    trained = trained_images(facts) if facts else None
    return RunFacts(
        total_images=requested,
        exported_images=trained,
        is_finished=is_finished,
        is_early=is_finished and trained is not None and trained < (requested or 0),
        events=read_events(folder.events),
        lease=lease,
        quiet_seconds=max(0.0, (now or time.time()) - renewed),
        failure=found_failure(root / "heartbeats"),
    )


def lease_and_time(path: Path) -> tuple[LeaseRecord | None, float]:
    """The lease, and the time at which its file was written; None and 0 without a lease."""
    try:
        return read_lease(path), path.stat().st_mtime
    except OSError:  # there is none, or it was removed meanwhile
        return None, 0.0


def readable_facts(folder: RunFolder) -> Record | None:
    """The facts in the export; None if there is no export or they cannot be read."""
    try:
        facts = folder.exported_facts()
    except RecordError:
        return None
    return facts if facts.get("images_seen") is not None else None


def requested_images(folder: RunFolder, name: str = "images") -> int | None:
    """An option of `train` in the recorded configuration; None if it is missing or cannot be read."""
    try:
        return typed(int, folder.recorded_options().get("train", {}).get(name), f"train.{name}")
    except (ValueError, AttributeError):
        return None


def found_failure(heartbeats: Path) -> str:
    """Error message of the first rank whose heartbeat says that it failed; empty if there is none."""
    for path in sorted(heartbeats.glob("[0-9]*.json")):
        try:
            found = read_record(path, "it is left out", {"rank": int, "message": str})
            if found.get("state") == RankState.FAILED:
                return f"rank {found['rank']}: {found['message']}".strip()
        except RecordError:
            continue
    return ""


def file_system_time(folder: Path) -> float:
    """The present time by the clock that dates files in a folder; this machine's if the folder is not writable."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
            return Path(file.name).stat().st_mtime
    except OSError:
        return time.time()


def turned_remark(standing: Sequence[Event]) -> str:
    """The remark in the overview, from the valid events; empty where the loss has not turned, or fell again."""
    turned = [event for event in standing if event["event"] == TURNED]
    validations = [event for event in standing if event["event"] == "validation" and "best_loss" in event]
    if not turned or not validations:
        return ""
    last = validations[-1]
    if last.get("best_images_seen") != turned[-1].get("best_images_seen"):
        return ""
    return f"held-out loss has turned: {since_lowest(last)}"


def since_lowest(values: Mapping[str, Any]) -> str:
    """`lowest -1.48 at 262,144 images, +0.12 since`, from the values of an event."""
    loss, rise, seen = (number(values.get(key)) for key in ("best_loss", "rise", "best_images_seen"))
    if loss is None or rise is None or seen is None:
        return "the event log does not say when"
    return f"lowest {loss:.3g} at {seen:,.0f} images, {rise:+.2g} since"
