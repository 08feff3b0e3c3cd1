"""Notices a hanging run, names the rank that it waits for, and ends it, so that no GPU idles until the time limit.

A daemon thread in every rank writes where its main thread is and looks for faults (hang_detection.py). All ranks learn
of a fault through files: each dumps its Python stacks to `RUN/stacks/`, the rank that saw it first logs it, rank 0
reports it as an event. This thread calls no collective. In a rank whose interpreter lock is held by foreign code this
thread cannot run either: there faulthandler's C code writes the stacks, to `heartbeats/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from lediflow.engine.hang_detection import (
    Fault,
    FaultLog,
    Heartbeat,
    Limits,
    Observer,
    Phase,
    RankState,
    clear_earlier,
    find_fault,
    write_heartbeat,
)
from lediflow.engine.ranks import Ranks
from lediflow.engine.stop import StopReason

log = logging.getLogger(__name__)

STALLED = 81  # exit status of a rank that ended itself in a stall; a launcher may start the run again
FAILED = 1  # exit status of a rank that ended itself because another one failed
# ranks that always read all heartbeats; the others read them only when they are late themselves
OBSERVERS = 2


class Position(NamedTuple):
    """Position of the main thread in the program."""

    phase: str
    steps: int
    beats: int
    since: float


class Watchdog:
    """`with Watchdog(...) as watchdog`; then the main thread of every rank calls `beat` at the same places.

    `report(event, **values)` is called in the watchdog's thread, on rank 0 only, once for each fault.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        limits: Limits,
        report: Callable[..., None],
        *,
        session: str,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.folder, self.stacks = folder / "heartbeats", folder / "stacks"
        self.ranks, self.limits, self.report, self.clock, self.leave = ranks, limits, report, clock, leave
        self.place = Position(Phase.STARTING, 0, 0, clock())
        self.heartbeat = Heartbeat(
            rank=ranks.rank, session=session, host=socket.gethostname(), pid=os.getpid()
        )
        self.observer = Observer(self.folder, ranks.world_size, session, clock)
        self.book = FaultLog(self.folder, session)
        self.known: set[str] = set()  # keys of faults
        # newest fault, this rank's place then, and the time
        self.stuck: tuple[Fault, Position, float] | None = None
        self.is_over = threading.Event()

    def beat(self, phase: Phase | str) -> None:
        """The main thread enters `phase`, or enters it again."""
        place = self.place
        self.place = Position(phase, place.steps, place.beats + 1, self.clock())

    def step_done(self) -> None:
        """Count one more finished optimizer step."""
        place = self.place
        self.place = Position(place.phase, place.steps + 1, 0, self.clock())

    def __enter__(self) -> Watchdog:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.ranks.is_first:
            clear_earlier(self.folder, self.heartbeat.session)
        self.held = HeldStacks(self.folder / f"{self.ranks.rank}-held.txt")
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        self.thread.join(self.limits.every_seconds)
        if self.thread.is_alive():
            return  # it hangs in a write: a second writer would hang too
        with contextlib.suppress(OSError):
            self.held.close()
            self._write(*ending(error))

    def _watch(self) -> None:
        is_reported = False
        while not self.is_over.is_set():
            self.held.put_off(self.limits.silent_seconds)
            try:
                self.tick()
            except OSError as error:
                if not is_reported:
                    log.warning(
                        "heartbeats cannot be written to %s (%s); training continues", self.folder, error
                    )
                is_reported = True
            self.is_over.wait(self.limits.every_seconds)

    def tick(self) -> None:
        """One round: write the heartbeat, look for faults, act on it."""
        beat = self._write()
        if (fault := self.book.next()) is not None:
            self._react_to(fault)
        elif self.ranks.rank < OBSERVERS or beat.seconds > self.limits.of(beat):
            self._look()
        self._leave_if_stuck()

    def _write(self, state: RankState = RankState.ALIVE, message: str = "") -> Heartbeat:
        phase, steps, beats, since = self.place
        self.heartbeat = dataclasses.replace(
            self.heartbeat,
            phase=str(phase),
            steps=steps,
            beats=beats,
            seconds=round(self.clock() - since, 2),
            written=self.heartbeat.written + 1,
            state=state,
            message=message,
        )
        write_heartbeat(self.folder, self.heartbeat)
        return self.heartbeat

    def _look(self) -> None:
        fault = find_fault(self.observer.look(), self.limits)
        if fault is None or fault.key in self.known:
            return
        if self.book.write(fault):
            log.error("%s. Stacks of all ranks that still answer: %s", fault.sentence, self.stacks)
        if (written := self.book.next()) is not None:
            self._react_to(written)

    def _react_to(self, fault: Fault) -> None:
        self.known.add(fault.key)
        self.stuck = fault, self.place, self.clock()
        dump_stacks(self.stacks, self.ranks.rank, fault.sentence)
        if self.ranks.is_first:
            self.report(fault.kind, sentence=fault.sentence, ranks=fault.seen)

    def _leave_if_stuck(self) -> None:
        if self.stuck is None:
            return
        fault, place, since = self.stuck
        has_failed = fault.kind == "rank_failed"
        if not has_failed and self.place != place:
            if self.ranks.is_first:
                log.warning("the run continues, %.0f s after: %s", self.clock() - since, fault.sentence)
            self.stuck = None
            return
        patience = self.limits.grace_seconds if has_failed else self.limits.end_after_seconds
        if patience and self.clock() - since > patience:
            log.critical("rank %d ends: %s", self.ranks.rank, fault.sentence)
            sys.stdout.flush()
            sys.stderr.flush()
            self.leave(FAILED if has_failed else STALLED)


def ending(error: BaseException | None) -> tuple[RankState, str]:
    """State and message of a rank's last heartbeat; a stop with the state saved is not a failure."""
    stops = [None, *(reason.exit_status for reason in StopReason)]
    if error is None or (isinstance(error, SystemExit) and error.code in stops):
        return RankState.DONE, ""
    return RankState.FAILED, f"{type(error).__name__}: {error}"


def dump_stacks(folder: Path, rank: int, title: str) -> None:
    """Append the Python stacks of all threads to `<time>-rank-<rank>.txt`."""
    folder.mkdir(exist_ok=True)
    time_of_day = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    with (folder / f"{time_of_day}-rank-{rank}.txt").open("a") as file:
        file.write(f"{title}\n\n")
        file.flush()  # faulthandler writes past Python's buffer
        faulthandler.dump_traceback(file, all_threads=True)


class HeldStacks:
    """Stacks that C code writes to `path` unless `put_off` is called in time.

    Foreign code that holds the interpreter lock stops every Python thread, the one that would dump stacks included.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("w")

    def put_off(self, seconds: float) -> None:
        """Write the stacks after so many seconds, unless called again before."""
        faulthandler.dump_traceback_later(seconds, file=self.file)

    def close(self) -> None:
        """Cancel writing; an empty file is removed."""
        faulthandler.cancel_dump_traceback_later()
        self.file.close()
        if self.path.stat().st_size == 0:
            self.path.unlink()
