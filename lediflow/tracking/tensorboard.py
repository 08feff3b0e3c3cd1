"""TensorBoard as a view of the event log. The only module that imports tensorboard, and only when it is used.

Each event's numbers appear as `event/key` over images seen, its pictures as `pictures/name`, each with the bytes of its
file. At every start the event file is written anew from the standing events of the log, and again when an event comes
a second time or a run goes back to a checkpoint: no point is there twice, and none is lost by a crash. A TensorBoard
that is open drops what it had read of the older file, since the new one begins with the record of a restart.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from lediflow.disk import PARTIAL
from lediflow.errors import UserError
from lediflow.run_folder import RunFolder
from lediflow.tracking.event_log import (
    BEGINNINGS,
    PICTURES,
    START,
    Event,
    logged_pictures,
    numbers,
    plain,
    standing_events,
)
from lediflow.tracking.metrics import VALUES, Values, value_of
from lediflow.tracking.tables import distinct_events, values_of

log = logging.getLogger(__name__)

FOLDER = "tensorboard"
NAME = "events.out.tfevents."  # how names of event files begin; TensorBoard reads them in alphabetical order
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}  # by PIL's mode


class TensorboardTracker:
    """Writes events to RUN/tensorboard. The first event of a continued run takes a while: see `background`."""

    def __init__(self, run_folder: Path, values: Values = VALUES) -> None:
        self.run_folder, self.folder, self.values = run_folder, run_folder / FOLDER, values
        self.event_pb2 = import_tensorboard("compat.proto.event_pb2")
        self.types_pb2 = import_tensorboard("compat.proto.types_pb2")
        self.records = import_tensorboard("summary.writer.record_writer")
        self.known: set[tuple[str, int]] = set()  # events that were in the log when the file was last rebuilt
        self.seconds = 0.0  # of the newest event, since 1970
        self.file: Any = None  # opened at the first event, when the run owns its folder

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        """Show an event, which the log of the run has already."""
        if self.file is None or self.is_again(event, images_seen):
            self.rebuild()
        if (event, images_seen) not in self.known:
            self.seconds = max(self.seconds, time.time())
            self.write({"event": event, "images_seen": images_seen, **plain(values)}, self.seconds)
            self.file.flush()

    def show_log(self) -> None:
        """Show a run that has ended, as its log is now."""
        self.rebuild()
        self.close()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def is_again(self, event: str, images_seen: int) -> bool:
        """Whether points that were written are no longer valid."""
        if event in BEGINNINGS:
            return images_seen < max(self.places.values(), default=-1)
        return (event, images_seen) not in self.known and images_seen <= self.places.get(event, -1)

    def rebuild(self) -> None:
        """Write a new event file from the log, then empty the older one."""
        if self.file is not None:
            self.file.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        older = sorted(self.folder.glob(f"{NAME}*"))
        partial, final = self.folder / f"rebuilt{PARTIAL}", self.folder / following_name(older)
        self.begin_file(partial)
        logged = with_seconds(since_start(standing_events(RunFolder(self.run_folder).events)))
        for entry in distinct_events(logged):
            self.write(entry, entry["time"])
        self.seconds = logged[-1]["time"] if logged else 0.0
        self.file.flush()
        partial.rename(final)  # the open file moves along
        for path in older:
            empty_or_remove(path)
        self.known = {(entry["event"], entry["images_seen"]) for entry in logged}

    def begin_file(self, path: Path) -> None:
        """Open a file that tells its readers to drop all points that they know."""
        self.places: dict[str, int] = {}  # newest place of each event
        self.described: set[str] = set()  # tags whose titles are in the file
        self.file = self.records.RecordWriter(path.open("wb"))
        session_log = {"status": self.event_pb2.SessionLog.START}
        for content in ({"file_version": "brain.Event:2"}, {"session_log": session_log}):
            self.file.write(self.event_pb2.Event(wall_time=0.0, **content).SerializeToString())

    def write(self, entry: Event, seconds: float) -> None:
        """Append the numbers and pictures of an event, with its time in seconds since 1970."""
        name, place = entry["event"], entry["images_seen"]
        self.places[name] = max(place, self.places.get(name, -1))
        record = self.event_pb2.Event(wall_time=seconds, step=place)
        for tag, value in numbers(name, values_of(entry)):
            self.add_number(record.summary, tag, value)
        for picture in logged_pictures(entry, self.run_folder):
            self.add_picture(record.summary, f"{PICTURES}/{picture.name}", picture.path)
        if record.summary.value:
            self.file.write(record.SerializeToString())

    def add_number(self, summary: Any, tag: str, value: float) -> None:
        """Add a number, with its title and unit where it is the first of its tag in the file."""
        added = summary.value.add(tag=tag, tensor={"dtype": self.types_pb2.DT_FLOAT, "float_val": [value]})
        if tag not in self.described:
            self.described.add(tag)
            added.metadata.plugin_data.plugin_name = "scalars"
            added.metadata.summary_description = value_of(tag, self.values).heading

    def add_picture(self, summary: Any, tag: str, path: Path) -> None:
        """Add a picture as it is stored; one that cannot be read is named in the log and left out."""
        try:
            encoded = path.read_bytes()
            with Image.open(path) as picture:
                (width, height), mode = picture.size, picture.mode
        except OSError as error:
            log.warning("TensorBoard shows no %s: %s", tag, error)
            return
        image = {"width": width, "height": height, "colorspace": CHANNELS.get(mode, 3)}
        summary.value.add(tag=tag, image={**image, "encoded_image_string": encoded})


def since_start(events: list[Event]) -> list[Event]:
    """The events from the last start on: a run that began again left nothing of its earlier attempts."""
    begun = [place for place, event in enumerate(events) if event["event"] == START]
    return events[begun[-1] :] if begun else events


def with_seconds(events: list[Event]) -> list[Event]:
    """The events with their time in seconds since 1970, which never falls, even if the clock was set back."""
    found, latest = [], 0.0
    for event in events:
        latest = max(latest, datetime.fromisoformat(event["time"]).timestamp())
        found.append({**event, "time": latest})
    return found


def empty_or_remove(path: Path) -> None:
    """Empty a file, and remove one that is empty: a TensorBoard without its data server cannot leave a removed file."""
    if path.stat().st_size:
        os.truncate(path, 0)
    else:
        path.unlink()


def following_name(older: list[Path]) -> str:
    """A name that comes after all older ones, even if the clock was set back."""
    numbers_used = [int(path.name.split(".")[3]) for path in older if path.name.split(".")[3].isdigit()]
    return f"{NAME}{max([int(time.time()), *(number + 1 for number in numbers_used)]):010d}.{os.getpid()}"


def import_tensorboard(name: str) -> ModuleType:
    """A module of tensorboard, or a UserError that says how to install it."""
    with contextlib.suppress(ImportError):
        return importlib.import_module(f"tensorboard.{name}")
    raise UserError(
        "tracking.tensorboard=true, but tensorboard is not installed; `pip install 'lediflow[tensorboard]'` or set "
        "tracking.tensorboard=false"
    )
