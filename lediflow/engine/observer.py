"""One rank's view of all heartbeats, and the book of troubles that all ranks share.

`trouble-<session>-<number>.json` is created by whoever sees trouble first, and read by all: so that stacks are dumped
everywhere, and told once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from lediflow.engine.heartbeats import Heartbeat, fate, read_heartbeat
from lediflow.engine.stalls import Sight, Trouble
from lediflow.records import read_dataclass, read_record


class Observer:
    """Knows when each rank's heartbeat last changed, by the observer's own clock."""

    def __init__(self, folder: Path, world_size: int, session: str, clock: Callable[[], float]) -> None:
        self.folder, self.session, self.clock = folder, session, clock
        self.host = socket.gethostname()
        absent = Heartbeat(rank=-1, session=session, host="an unknown host", pid=0, beats=-1)
        self.newest = [dataclasses.replace(absent, rank=rank) for rank in range(world_size)]
        self.changed = [clock()] * world_size

    def look(self) -> list[Sight]:
        """Every rank as it was last heard of."""
        now = self.clock()
        for rank, known in enumerate(self.newest):
            found = read_heartbeat(self.folder, rank, self.session)
            if found is not None and found != known:
                self.newest[rank], self.changed[rank] = found, now
        return [
            self._sight(beat, now - changed) for beat, changed in zip(self.newest, self.changed, strict=True)
        ]

    def _sight(self, beat: Heartbeat, unchanged_seconds: float) -> Sight:
        if not beat.written:
            return Sight(beat, unchanged_seconds, "silent: it never started")
        return Sight(beat, unchanged_seconds, fate(beat, self.host) if unchanged_seconds else "")


class TroubleBook:
    """Troubles in the order in which they were written down; `next` gives each of them once."""

    def __init__(self, folder: Path, session: str) -> None:
        self.folder, self.session = folder, session
        self.number = 0

    def write(self, trouble: Trouble) -> bool:
        """Write the next trouble down; false if another rank has just done so."""
        text = json.dumps(dataclasses.asdict(trouble) | {"session": self.session})
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
        except OSError:  # half a trouble would stand in the way of all others
            self._path.unlink(missing_ok=True)
            raise
        return True

    def next(self) -> Trouble | None:
        """The next trouble, if it is whole."""
        try:
            found = dict(read_record(self._path, "it is left out"))
            found.pop("session", None)
            trouble: Trouble = read_dataclass(Trouble, found, "trouble")
        except ValueError:
            return None
        self.number += 1
        return trouble

    @property
    def _path(self) -> Path:
        return self.folder / f"trouble-{self.session}-{self.number}.json"
