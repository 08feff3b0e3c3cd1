"""Heartbeats of all ranks as files, and which rank a stalled run waits for.

Heartbeats. Each rank rewrites `heartbeats/<rank>.json` in the run folder every few seconds. Ranks read each other's
files instead of sending messages: a process whose main thread hangs in a collective can still write a file. Clocks of
two machines are never compared: a rank writes how long it has been in its phase, and a reader notes by its own clock
when the file last changed. `session` distinguishes the files of this start from those of an earlier one.

Stalls (`find_fault`, a pure function). A collective makes every rank wait for the slowest, so most ranks of a
stalled run only wait. The rank that is behind all others in the program is the one they wait for, and its phase says
how long that may take. A rank that waits in a step for another rank's save is no stall until the save takes too long.

Faults. `trouble-<session>-<number>.json` is created by the rank that sees a fault first and read by all, so that
every rank dumps its stacks and the fault is reported once.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from lediflow.disk import replace_text
from lediflow.ranges import bounded
from lediflow.records import UNREADABLE, read_dataclass, read_record


class Phase(enum.StrEnum):
    """The part of the program that a rank is in; each has a time limit of its own (Limits)."""

    STARTING = "starting"  # building and compiling, until the first step is done
    DATA = "data"
    STEP = "step"
    SAVING = "saving"
    VALIDATING = "validating"
    FINISHING = "finishing"


class RankState(enum.StrEnum):
    ALIVE = "alive"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """One rank's position in the program.

    All ranks enter the same phases in the same order, so that comparing (steps, beats) finds the rank that is behind.
    """

    rank: int
    session: str
    host: str
    pid: int
    phase: str = Phase.STARTING
    steps: int = 0  # optimizer steps this process has done
    beats: int = 0  # phases entered since the last step
    seconds: float = 0.0  # since this phase was entered
    written: int = 0  # times this file was written; a number that no longer grows means a silent rank
    state: str = RankState.ALIVE
    message: str = ""  # why it failed

    @property
    def place(self) -> tuple[int, int]:
        return self.steps, self.beats


def write_heartbeat(folder: Path, heartbeat: Heartbeat) -> None:
    """Replace the rank's file; a reader sees the old or the new one."""
    text = json.dumps(dataclasses.asdict(heartbeat))
    # A temporary name of the rank, not of the process: killed ranks leave one file each at most.
    replace_text(folder / f"{heartbeat.rank}.json", text, temporary=f".{heartbeat.rank}.partial")


def read_heartbeat(folder: Path, rank: int, session: str) -> Heartbeat | None:
    """A rank's newest heartbeat of this session; None if there is none."""
    try:
        found: Heartbeat = read_dataclass(
            Heartbeat, read_record(folder / f"{rank}.json", "it is left out"), "heartbeat"
        )
    except ValueError:
        return None
    return found if found.session == session else None


def describe_silence(heartbeat: Heartbeat, host: str) -> str:
    """What happened to a silent rank's process, as far as a process on `host` can see it."""
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
    """Remove the files of earlier sessions."""
    for path in folder.glob("*.json"):
        try:
            if json.loads(path.read_text()).get("session") != session:
                path.unlink(missing_ok=True)
        except (OSError, *UNREADABLE, AttributeError):
            path.unlink(missing_ok=True)


@dataclass(kw_only=True)
class WatchdogConfig:
    """The limits that depend on models and disks; the others are constants of `Limits`."""

    # longest building and compiling, first step included
    starting_seconds: float = bounded(3600.0, above=0)
    data_seconds: float = bounded(300.0, above=0)  # longest wait for a batch
    # longest step; NCCL ends a process after 600 s without naming the rank it waited for
    step_seconds: float = bounded(300.0, above=0)
    # stalled ranks end themselves this long after their stacks were dumped; 0: never
    end_after_seconds: float = bounded(600.0, at_least=0)


@dataclass(kw_only=True)
class Limits(WatchdogConfig):
    """All limits of the watchdog in seconds."""

    every_seconds: float = 5.0  # between two heartbeats; each is one small file per rank
    saving_seconds: float = 1800.0  # longest save
    validating_seconds: float = 1800.0  # longest validation
    finishing_seconds: float = 1800.0  # longest time after the last step
    silent_seconds: float = 60.0  # a rank whose heartbeat has not changed for this long counts as silent
    grace_seconds: float = 30.0  # ranks end themselves this long after another one failed

    def of(self, heartbeat: Heartbeat) -> float:
        """Longest time in seconds that a rank may stay in its phase."""
        seconds = getattr(self, f"{heartbeat.phase}_seconds")
        return max(seconds, self.starting_seconds) if heartbeat.steps == 0 else seconds


class RankView(NamedTuple):
    """A rank as another rank sees it."""

    heartbeat: Heartbeat
    unchanged_seconds: float  # by the observer's clock
    silence: str = ""  # what the observer knows of the process of a silent rank

    @property
    def seconds_in_phase(self) -> float:
        return self.heartbeat.seconds + self.unchanged_seconds

    def __str__(self) -> str:
        beat, seconds = self.heartbeat, self.seconds_in_phase
        return f"rank {beat.rank} on {beat.host} ({beat.phase} for {seconds:.0f} s, {beat.steps} steps done)"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with which ranks; `kind` is `rank_failed`, `rank_silent` or `stall`."""

    kind: str
    ranks: list[int]
    sentence: str
    seen: list[dict[str, Any]] = field(default_factory=list)  # place and host of each of these ranks

    @property
    def key(self) -> str:
        """An identifier that is equal for all observers of the same fault, as long as nothing changes."""
        return f"{self.kind} {self.ranks} {[(one['steps'], one['beats']) for one in self.seen]}"


def find_fault(views: Sequence[RankView], limits: Limits) -> Fault | None:
    """The most severe fault: failed ranks, else silent ones, else ranks that stay behind for too long; or None."""
    alive = [view for view in views if view.heartbeat.state == RankState.ALIVE]
    if failed := [view for view in views if view.heartbeat.state == RankState.FAILED]:
        words = (f"{_name(view)} failed: {view.heartbeat.message}" for view in failed)
        return _fault("rank_failed", failed, "; ".join(words))
    if silent := [view for view in alive if view.unchanged_seconds > _longest_silence(view, limits)]:
        words = (f"{view} is {view.silence}" for view in silent)
        return _fault("rank_silent", silent, "; ".join(words))
    behind = _behind(alive)
    if all(view.seconds_in_phase <= limits.of(view.heartbeat) for view in behind):
        return None
    who = ", ".join(map(str, behind))
    if len(behind) == len(alive) > 1:
        return _fault("stall", behind, f"every rank is at the same place: {who}")
    longest = max(limits.of(view.heartbeat) for view in behind)
    waiting = "; the other ranks wait" if len(alive) > 1 else ""
    return _fault("stall", behind, f"{who} stays longer than the {longest:.0f} s of its phase{waiting}")


def _behind(alive: Sequence[RankView]) -> list[RankView]:
    first = min((view.heartbeat.place for view in alive), default=None)
    return [view for view in alive if view.heartbeat.place == first]


def _longest_silence(view: RankView, limits: Limits) -> float:
    has_begun = view.heartbeat.written > 0
    return limits.silent_seconds if has_begun else limits.starting_seconds


def _name(view: RankView) -> str:
    return f"rank {view.heartbeat.rank} on {view.heartbeat.host}"


def _fault(kind: str, views: Sequence[RankView], sentence: str) -> Fault:
    seen = [
        {
            "rank": view.heartbeat.rank,
            "host": view.heartbeat.host,
            "phase": view.heartbeat.phase,
            "steps": view.heartbeat.steps,
            "beats": view.heartbeat.beats,
            "seconds": round(view.seconds_in_phase, 1),
        }
        for view in views
    ]
    return Fault(kind=kind, ranks=[view.heartbeat.rank for view in views], sentence=sentence, seen=seen)


class Observer:
    """One rank's view of all heartbeats: when each last changed, by the observer's own clock."""

    def __init__(self, folder: Path, world_size: int, session: str, clock: Callable[[], float]) -> None:
        self.folder, self.session, self.clock = folder, session, clock
        self.host = socket.gethostname()
        absent = Heartbeat(rank=-1, session=session, host="an unknown host", pid=0, beats=-1)
        self.newest = [dataclasses.replace(absent, rank=rank) for rank in range(world_size)]
        self.changed = [clock()] * world_size

    def look(self) -> list[RankView]:
        """All ranks, each by its newest heartbeat."""
        now = self.clock()
        for rank, known in enumerate(self.newest):
            found = read_heartbeat(self.folder, rank, self.session)
            if found is not None and found != known:
                self.newest[rank], self.changed[rank] = found, now
        return [
            self._view(beat, now - changed) for beat, changed in zip(self.newest, self.changed, strict=True)
        ]

    def _view(self, beat: Heartbeat, unchanged_seconds: float) -> RankView:
        if not beat.written:
            return RankView(beat, unchanged_seconds, "silent: it never started")
        return RankView(
            beat, unchanged_seconds, describe_silence(beat, self.host) if unchanged_seconds else ""
        )


class FaultLog:
    """The faults that all ranks share, in the order in which they were written; `next` returns each once."""

    def __init__(self, folder: Path, session: str) -> None:
        self.folder, self.session = folder, session
        self.number = 0

    def write(self, fault: Fault) -> bool:
        """Write the next fault; False if another rank has just written one."""
        text = json.dumps(dataclasses.asdict(fault) | {"session": self.session})
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
        except OSError:  # a half-written file would block all later faults
            self._path.unlink(missing_ok=True)
            raise
        return True

    def next(self) -> Fault | None:
        """The next fault; None while there is none that is complete."""
        try:
            found = dict(read_record(self._path, "it is left out"))
            found.pop("session", None)
            fault: Fault = read_dataclass(Fault, found, "fault")
        except ValueError:
            return None
        self.number += 1
        return fault

    @property
    def _path(self) -> Path:
        return self.folder / f"trouble-{self.session}-{self.number}.json"
