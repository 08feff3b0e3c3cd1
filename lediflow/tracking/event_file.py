"""Writing the event log: an append-only JSONL file in the run folder, with one process that writes it."""

import errno
import logging
import os
from collections import deque
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

from lediflow.errors import UserError
from lediflow.tracking.events import event_line

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.0  # with another thread that is writing


class JsonlTracker:
    """Appends each event to the log at once, so that a killed run has told all it did. Threads may share it.

    While the disk is full, lines wait in memory and are written with the first event after; training goes on. A write
    that hangs does not hang the other threads: they leave their lines behind for whoever writes next.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.file = open_for_append(self.path)
        self.waiting: deque[bytes] = deque()
        self.lock = Lock()
        self.is_failing = False

    def record(self, event: str, images_seen: int, **values: Any) -> None:
        self.waiting.append(event_line(event, images_seen, values).encode())
        self.write_waiting()

    def close(self) -> None:
        self.write_waiting()
        self.file.close()

    def write_waiting(self) -> None:
        """Write the lines that were not written yet; if that fails, they wait on."""
        if not self.lock.acquire(timeout=PATIENCE_SECONDS):
            return
        try:
            if self.is_failing and ends_inside_a_line(self.path):
                self.append(b"\n")
            while self.waiting:
                self.append(self.waiting[0])
                self.waiting.popleft()
            self.is_failing = False
        except OSError as error:
            if not self.is_failing:
                log.warning("%s cannot be written (%s); events wait until it can", self.path, error.strerror)
            self.is_failing = True
        finally:
            self.lock.release()

    def append(self, line: bytes) -> None:
        """One write of the whole line, unbuffered."""
        if self.file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a write cut short means


def open_for_append(path: Path) -> FileIO:
    """The log, ready for a new line even if a crash tore its last one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = ends_inside_a_line(path)
        file = FileIO(path, "a")
        if torn:
            file.write(b"\n")
    except OSError as error:
        raise UserError(
            f"cannot write the event log {path}: {error.strerror}; choose another run folder"
        ) from error
    return file


def ends_inside_a_line(path: Path) -> bool:
    """Whether the file's last byte is something other than a newline."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
