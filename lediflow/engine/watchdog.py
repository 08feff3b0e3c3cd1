"""Notices a run that hangs, says which rank it waits for, and ends it, so that no GPU waits for the time limit.

A daemon thread in every rank writes where its main thread is (heartbeats.py) and looks for trouble (stalls.py). Of
what it finds all ranks learn through files: each dumps its Python stacks to `RUN/stacks/`, the one that saw it first
logs who is slow, the first rank reports it as an event. No thread here calls a collective. A rank whose interpreter is
held by foreign code cannot run this thread: then C code of faulthandler writes its stacks, to `heartbeats/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from lediflow.engine.heartbeats import Heartbeat, Phase, State, clear_earlier, write_heartbeat
from lediflow.engine.observer import Observer, TroubleBook
from lediflow.engine.preemption import StopReason
from lediflow.engine.ranks import Ranks
from lediflow.engine.stacks import HeldStacks, dump_stacks
from lediflow.engine.stalls import Trouble, WatchdogConfig, find_trouble

log = logging.getLogger(__name__)

STALLED = 81  # exit status of a rank that ended itself; a launcher may start the run again
FAILED = 1  # ... after another rank failed: that one's own status, if larger, says more
OBSERVERS = 2  # ranks that read all heartbeats always; others only when they are late themselves


class Place(NamedTuple):
    """Where the main thread is."""

    phase: str
    steps: int
    beats: int
    since: float


class Watchdog:
    """`with Watchdog(...) as watchdog`; then the main thread of every rank calls `beat` at the same places.

    `report(event, **values)` is called in the watchdog's thread, on the first rank only, once for each trouble.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        config: WatchdogConfig,
        report: Callable[..., None],
        *,
        session: str,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.folder, self.stacks = folder / "heartbeats", folder / "stacks"
        self.ranks, self.config, self.report, self.clock, self.leave = ranks, config, report, clock, leave
        self.place = Place(Phase.STARTING, 0, 0, clock())
        self.heartbeat = Heartbeat(
            rank=ranks.rank, session=session, host=socket.gethostname(), pid=os.getpid()
        )
        self.observer = Observer(self.folder, ranks.world_size, session, clock)
        self.book = TroubleBook(self.folder, session)
        self.known: set[str] = set()  # keys of troubles
        self.stuck: tuple[Trouble, Place, float] | None = None  # the last one, where it found us, and when
        self.is_over = threading.Event()

    def beat(self, phase: Phase | str) -> None:
        """The main thread enters `phase`, perhaps once more."""
        place = self.place
        self.place = Place(phase, place.steps, place.beats + 1, self.clock())

    def step_done(self) -> None:
        """One more optimizer step is behind this rank."""
        place = self.place
        self.place = Place(place.phase, place.steps + 1, 0, self.clock())

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
        self.thread.join(self.config.every_seconds)
        if self.thread.is_alive():
            return  # its disk hangs: a second writer would hang too
        with contextlib.suppress(OSError):
            self.held.close()
            self._write(*ending(error))

    def _watch(self) -> None:
        is_told = False
        while not self.is_over.is_set():
            self.held.put_off(self.config.silent_seconds)
            try:
                self.tick()
            except OSError as error:
                if not is_told:
                    log.warning(
                        "heartbeats cannot be written to %s (%s); training goes on", self.folder, error
                    )
                is_told = True
            self.is_over.wait(self.config.every_seconds)

    def tick(self) -> None:
        """One round: say where we are, look for trouble, act on it."""
        beat = self._write()
        if (trouble := self.book.next()) is not None:
            self._take_note(trouble)
        elif self.ranks.rank < OBSERVERS or beat.seconds > self.config.limit(beat):
            self._look()
        self._leave_if_hopeless()

    def _write(self, state: State = State.ALIVE, message: str = "") -> Heartbeat:
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
        trouble = find_trouble(self.observer.look(), self.config)
        if trouble is None or trouble.key in self.known:
            return
        if self.book.write(trouble):
            log.error("%s. Stacks of all ranks that still answer: %s", trouble.sentence, self.stacks)
        if (written := self.book.next()) is not None:
            self._take_note(written)

    def _take_note(self, trouble: Trouble) -> None:
        self.known.add(trouble.key)
        self.stuck = trouble, self.place, self.clock()
        dump_stacks(self.stacks, self.ranks.rank, trouble.sentence)
        if self.ranks.is_first:
            self.report(trouble.kind, sentence=trouble.sentence, ranks=trouble.seen)

    def _leave_if_hopeless(self) -> None:
        if self.stuck is None:
            return
        trouble, place, since = self.stuck
        has_failed = trouble.kind == "rank_failed"
        if not has_failed and self.place != place:
            if self.ranks.is_first:
                log.warning("going on, %.0f s after: %s", self.clock() - since, trouble.sentence)
            self.stuck = None
            return
        patience = self.config.grace_seconds if has_failed else self.config.end_after_seconds
        if patience and self.clock() - since > patience:
            log.critical("rank %d ends: %s", self.ranks.rank, trouble.sentence)
            sys.stdout.flush()
            sys.stderr.flush()
            self.leave(FAILED if has_failed else STALLED)


def ending(error: BaseException | None) -> tuple[State, str]:
    """How a rank's last heartbeat describes its end; a stop with the state saved is no failure."""
    stops = [None, *(reason.exit_status for reason in StopReason)]
    if error is None or (isinstance(error, SystemExit) and error.code in stops):
        return State.DONE, ""
    return State.FAILED, f"{type(error).__name__}: {error}"
