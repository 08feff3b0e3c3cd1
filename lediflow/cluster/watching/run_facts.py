"""What a run folder tells about its run: how far it is, whether somebody trains there, what it failed of.

Whether a lease is renewed is seen from its file's age by the file system's own clock: the time at which a file that is
made now is said to have been made. Clocks of two machines are never compared.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lediflow.cluster.watching.goodput import BEGINNINGS, TrainingTime, moment, training_time
from lediflow.engine.hang_detection import RankState
from lediflow.engine.lease_record import LeaseRecord, read_lease
from lediflow.records import Record, RecordError, read_record, typed
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import Event, number, read_events, standing
from lediflow.training.exporting import has_ended, trained_images
from lediflow.training.turned import remark


@dataclass(frozen=True)
class RunFacts:
    """Empty where there is no run yet."""

    total_images: int | None = None  # asked for
    exported_images: int | None = None  # images seen by the run when its weights were exported
    is_finished: bool = False  # by the facts in the export: no more images are trained on
    is_early: bool = False  # it ended by train.patience_images, before the images asked for
    events: list[Event] = field(default_factory=list)
    lease: LeaseRecord | None = None
    quiet_seconds: float = 0.0  # since the lease was renewed
    failure: str = ""  # what a rank of the last start failed of

    @property
    def is_done(self) -> bool:
        if self.is_finished:
            return True
        return self.exported_images is not None and self.exported_images >= (self.total_images or 0)

    @property
    def is_alive(self) -> bool:
        """Whether somebody trains there."""
        lease = self.lease
        return lease is not None and not lease.is_over and self.quiet_seconds < lease.patience

    @property
    def images_seen(self) -> int | None:
        return self.events[-1]["images_seen"] if self.events else None

    @property
    def done(self) -> str:
        """The state of a finished run: `done`, or `done (patience)`."""
        return "done (patience)" if self.is_early else "done"

    @cached_property
    def remark(self) -> str:
        """The message that the held-out loss has turned; empty if it has not."""
        return remark(standing(self.events))

    @property
    def images_per_second(self) -> float | None:
        """Of the last window of the present start."""
        for event in reversed(self.events):
            if event["event"] in BEGINNINGS:
                return None
            if event["event"] == "train":
                return number(event.get("images_per_second"))
        return None

    @property
    def last_sign(self) -> float | None:
        """The time of the last event."""
        return moment(self.events[-1]) if self.events else None

    @cached_property
    def training_time(self) -> TrainingTime:
        return training_time(self.events)


def read_run(root: Path, now: float | None = None) -> RunFacts:
    """`now` by the file system's clock, see `file_system_time`."""
    folder = RunFolder(root)
    lease, renewed = read_leased(folder.lease)
    asked, patience = (asked_images(folder, name) for name in ("images", "patience_images"))
    facts = exported_facts(folder)
    is_finished = facts is not None and asked is not None and has_ended(facts, asked, patience)
    trained = trained_images(facts) if facts else None
    return RunFacts(
        total_images=asked,
        exported_images=trained,
        is_finished=is_finished,
        is_early=is_finished and trained is not None and trained < (asked or 0),
        events=read_events(folder.events),
        lease=lease,
        quiet_seconds=max(0.0, (now or time.time()) - renewed),
        failure=found_failure(root / "heartbeats"),
    )


def read_leased(path: Path) -> tuple[LeaseRecord | None, float]:
    """The lease, and when its file was written."""
    try:
        return read_lease(path), path.stat().st_mtime
    except OSError:  # gone meanwhile, or nobody's
        return None, 0.0


def exported_facts(folder: RunFolder) -> Record | None:
    """The facts in the export; None where there is no export, or its facts cannot be read."""
    try:
        facts = folder.exported_facts()
    except RecordError:
        return None
    return facts if facts.get("images_seen") is not None else None


def asked_images(folder: RunFolder, name: str = "images") -> int | None:
    """An option of train in the recorded configuration; None where it is missing or cannot be read."""
    try:
        return typed(int, folder.recorded_options().get("train", {}).get(name), f"train.{name}")
    except (ValueError, AttributeError):
        return None


def found_failure(heartbeats: Path) -> str:
    """Of the first rank that left a message."""
    for path in sorted(heartbeats.glob("[0-9]*.json")):
        try:
            found = read_record(path, "it is left out", {"rank": int, "message": str})
            if found.get("state") == RankState.FAILED:
                return f"rank {found['rank']}: {found['message']}".strip()
        except RecordError:
            continue
    return ""


def file_system_time(folder: Path) -> float:
    """The present moment by the clock that dates the files of a folder; ours where we may not write there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
            return Path(file.name).stat().st_mtime
    except OSError:
        return time.time()
