"""Where each rank is, as small files in the run folder: `heartbeats/<rank>.json`, written again every few seconds.

Ranks read each other's files instead of calling each other: what hangs in a collective can still write a file. Clocks
of two machines are never compared: a rank says how long it has been where it is, and whoever reads the files notes by
its own clock when they last changed. `session` tells the files of this attempt from those of an earlier one.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass
from pathlib import Path

import psutil

from lediflow.records import UNREADABLE, read_dataclass, read_record


class Phase(enum.StrEnum):
    """What a rank is at, as far as it concerns how long that may take."""

    STARTING = "starting"  # building, compiling, until the first step is done
    DATA = "data"
    STEP = "step"
    SAVING = "saving"
    VALIDATING = "validating"
    FINISHING = "finishing"


class State(enum.StrEnum):
    ALIVE = "alive"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """One rank's place in the program.

    Every rank passes the same phases in the same order, so that (steps, beats) says who is behind.
    """

    rank: int
    session: str
    host: str
    pid: int
    phase: str = Phase.STARTING
    steps: int = 0  # optimizer steps this process has done
    beats: int = 0  # phases entered since the last of them
    seconds: float = 0.0  # since this phase was entered
    written: int = 0  # how often this file was written: a number that stands still is a rank that is silent
    state: str = State.ALIVE
    message: str = ""  # why it failed

    @property
    def place(self) -> tuple[int, int]:
        return self.steps, self.beats


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Replaces the rank's file; a reader sees the old or the new one."""
    text = json.dumps(dataclasses.asdict(heartbeat))
    partial = folder / f".{heartbeat.rank}.partial"
    partial.write_text(text)
    partial.replace(folder / f"{heartbeat.rank}.json")


def read_heartbeat(folder: Path, rank: int, session: str) -> Heartbeat | None:
    """A rank's newest heartbeat of this session, if there is one."""
    try:
        found: Heartbeat = read_dataclass(
            Heartbeat, read_record(folder / f"{rank}.json", "it is left out"), "heartbeat"
        )
    except ValueError:
        return None
    return found if found.session == session else None


def fate(heartbeat: Heartbeat, host: str) -> str:
    """What became of a silent rank's process, as far as `host` can tell."""
    if heartbeat.host != host:
        return "silent: killed, stopped, or its machine is out of reach"
    try:
        status = psutil.Process(heartbeat.pid).status()
    except psutil.Error:
        return "gone: its process was killed"
    if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
        return "stopped: its process waits for SIGCONT"
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return "gone: its process was killed"
    return "silent: its process lives, but its interpreter is held or its file cannot be written"


def clear_earlier(folder: Path, session: str) -> None:
    """Remove what earlier attempts left."""
    for path in folder.glob("*.json"):
        try:
            if json.loads(path.read_text()).get("session") != session:
                path.unlink(missing_ok=True)
        except (OSError, *UNREADABLE, AttributeError):
            path.unlink(missing_ok=True)
