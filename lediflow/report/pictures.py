"""The report's section on pictures while training: those of the newest milestones of each run, inside the page.

A picture is embedded as its file is, byte for byte, while the section has room; after that it is halved until it fits,
or only named. The newest milestone of every run comes first. A file is shown only if it has the hash of its event.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from lediflow.report.runs import RunRecord
from lediflow.tracking.event_log import PICTURES, Event

NEWEST = 3  # milestones of a run that are shown
SECTION_BYTES = 1_500_000  # of all files in the section; base64 makes them a third longer
SMALLEST_WIDTH = 400  # pixels; a narrower picture could not be read


@dataclass(kw_only=True)
class ShownPicture:
    """A picture of one milestone; without a `uri` it is only named. `note` says what is not as in the file."""

    name: str
    caption: str
    uri: str = ""
    width: int = 0
    height: int = 0
    note: str = ""


@dataclass(kw_only=True)
class Milestone:
    """The pictures that a run made at one milestone."""

    images_seen: int
    pictures: list[ShownPicture]


@dataclass(kw_only=True)
class RunPictures:
    """The newest milestones of a run, newest first, and the number of its milestones that have pictures."""

    run: str
    count: int
    milestones: list[Milestone] = field(default_factory=list)


@dataclass
class Room:
    """Bytes that the section may still use."""

    bytes_left: int = SECTION_BYTES

    def take(self, content: bytes) -> bool:
        """Use the room for `content`; False if there is too little."""
        if len(content) > self.bytes_left:
            return False
        self.bytes_left -= len(content)
        return True


def pictures_of(runs: Sequence[RunRecord]) -> list[RunPictures]:
    """The newest pictures of the runs that have some."""
    logged = [(run, picture_events(run)) for run in runs]
    logged = [(run, events) for run, events in logged if events]
    found = [RunPictures(run=run.title, count=len(events)) for run, events in logged]
    room = Room()
    for place in range(NEWEST):
        for shown, (run, events) in zip(found, logged, strict=True):
            if place < len(events):
                shown.milestones.append(shown_milestone(run.folder.root, events[place], room))
    return found


def picture_events(run: RunRecord) -> list[Event]:
    """The standing events with pictures, one for each milestone, newest first."""
    by_milestone = {
        event["images_seen"]: event for event in run.log.pictures if isinstance(event.get(PICTURES), dict)
    }
    return [by_milestone[seen] for seen in sorted(by_milestone, reverse=True)]


def shown_milestone(root: Path, event: Event, room: Room) -> Milestone:
    """The pictures of an event that says what a picture's file is."""
    named = {str(name): about for name, about in event[PICTURES].items() if isinstance(about, dict)}
    return Milestone(
        images_seen=event["images_seen"],
        pictures=[shown_picture(root, name, about, room) for name, about in named.items()],
    )


def shown_picture(root: Path, name: str, about: Mapping[str, Any], room: Room) -> ShownPicture:
    """A picture of the run folder `root`, as far as the file is there and the section has room."""
    file, caption = str(about.get("file")), str(about.get("caption", ""))
    content = verified(root, file, str(about.get("sha256")))
    if content is None:
        return ShownPicture(name=name, caption=caption, note=f"{file} is missing, or was changed.")
    fitting, width, height, halvings = fitted(content, room)
    if not fitting:
        return ShownPicture(name=name, caption=caption, note=f"Too large for this page: {file}.")
    note = f"Shown at 1/{2**halvings} of the size of {file}." if halvings else ""
    uri = "data:image/png;base64," + base64.b64encode(fitting).decode()
    return ShownPicture(name=name, caption=caption, uri=uri, width=width, height=height, note=note)


def verified(root: Path, file: str, sha256: str) -> bytes | None:
    """The content of a file in the run folder; None if it is not there, or is not the one that was recorded."""
    path = (root / file).resolve()
    if not path.is_relative_to(root.resolve()):
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == sha256 else None


def fitted(content: bytes, room: Room) -> tuple[bytes, int, int, int]:
    """A PNG's bytes, width and height, halved as often as the room needs, and how often; no bytes if it has none."""
    picture: Image.Image = Image.open(io.BytesIO(content))
    halvings = 0
    while picture.width >= SMALLEST_WIDTH or not halvings:
        if room.take(content):
            return content, *picture.size, halvings
        halvings += 1
        picture = picture.resize(
            (max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.BOX
        )
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        content = buffer.getvalue()
    return b"", 0, 0, halvings
