"""When and why a run stops before its end: signals, a stop file, the wall time, a lost lease.

A request to stop is a flag. Every rank votes with it at each step; all ranks agree, save together and leave.

Requests: the signals INT (Ctrl-C), TERM, USR1 and USR2 (SLURM's warning before the time limit); a file (`touch
RUN/stop`); the clock, when the wall time is near (`Deadline`); the loss of the run folder's lease (lease.py). Signals
count from the moment the `with StopRequest()` block is entered, long before the training loop begins.

Deadline. Ranks agree while the next step computes, so a vote is answered one step later. A rank that does not vote now
can vote one step later, is answered one step after that, and then saves. So it must vote as soon as

    now + 2 step + save + others + margin > end,

each with the longest duration measured lately: a missed end costs everything since the last checkpoint, an early stop
costs seconds. `others` is the occasional work between two steps (validation). Times are seconds of `clock`, by default
since the epoch.

Second Ctrl-C. It ends the process at once, also inside a collective, where no Python handler runs: the interpreter's
C handler writes each signal's number into a socket, and a thread reads it (`Interrupts`).
"""

from __future__ import annotations

import enum
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lediflow.engine import early_signals
from lediflow.errors import INTERRUPTED
from lediflow.ranges import bounded

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LOOK_EVERY_SECONDS = 1.0  # for the stop file: a call to a shared file system may take milliseconds

STEPS_UNTIL_ANSWERED = 2  # between a vote and the save, see the module's docstring
MARGIN_SECONDS = 60.0  # between the end of the last save and the wall time
SAVE_SECONDS = 60.0  # assumed duration of a save until one was measured
SEEN_LATELY = 256  # durations of each kind that count; older ones are forgotten
LARGEST_SHARE = 0.05  # of the whole time: upper limit of the margin, and of the assumed duration of a save

GRACE_SECONDS = 2.0  # after a second Ctrl-C, for an orderly end by KeyboardInterrupt, if Python code runs


class StopReason(enum.IntEnum):
    """Why a run stops; of several reasons the largest wins.

    The stop file outranks signals and wall time, after which a job is started again: only the file asks the run to
    stay stopped. A lost lease outranks the file: nothing may be written any more, and the file concerns the process
    that holds the lease now.
    """

    NONE = 0
    WALL_TIME = 1
    SIGNAL = 2
    STOP_FILE = 3
    LEASE_LOST = 4

    @property
    def exit_status(self) -> int:
        """The status of the process: 75 is EX_TEMPFAIL of sysexits.h; the others lie above its range."""
        return {"NONE": 0, "SIGNAL": 75, "WALL_TIME": 79, "STOP_FILE": 80, "LEASE_LOST": 82}[self.name]

    @property
    def sentence(self) -> str:
        """The reason in words, for messages and the job's records."""
        return {
            "NONE": "no stop was requested",
            "WALL_TIME": "the wall time is near",
            "SIGNAL": "a signal asked for a stop",
            "STOP_FILE": "the stop file asked for a stop",
            "LEASE_LOST": "the run folder is no longer held by this session",
        }[self.name]


class StopRequest:
    """Within `with StopRequest() as stop`, `stop.vote()` is this rank's reason to stop.

    `file`, `deadline` and `holds` may be set later, when they are known, on rank 0 only.
    """

    def __init__(
        self,
        file: Path | None = None,
        deadline: Deadline | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.file = file
        self.deadline = deadline
        self.clock = clock
        self.holds: Callable[[], bool] = lambda: True  # whether this process holds the run folder's lease
        self.signal: signal.Signals | None = None  # the first stop signal received
        self.was_interrupted = False  # by Ctrl-C
        self.interrupts = Interrupts()
        self.previous: dict[signal.Signals, Any] = {}  # the handlers before ours
        self._is_file_seen = False
        self._next_look = -float("inf")

    def vote(self) -> StopReason:
        """This rank's reason to stop now; cheap enough for every step."""
        if not self.holds():
            return StopReason.LEASE_LOST
        if self._is_file_seen or self._finds_file():
            return StopReason.STOP_FILE
        if self.signal is not None:
            return StopReason.SIGNAL
        if self.deadline is not None and self.deadline.is_near:
            return StopReason.WALL_TIME
        return StopReason.NONE

    def observe(self, kind: str, seconds: float) -> None:
        """Pass the duration of a `step`, a `save` or another pause to the deadline, if there is one."""
        if self.deadline is not None:
            self.deadline.observe(kind, seconds)

    @property
    def makes_saving_pointless(self) -> bool:
        """Whether the wall time is so near that a save that begins now would delay the last save."""
        return self.deadline is not None and not self.deadline.is_save_worthwhile

    def consume(self) -> None:
        """Remove the stop file that was seen, so that the next start trains; call it once the state is saved."""
        if self._is_file_seen and self.file is not None:
            try:
                self.file.unlink(missing_ok=True)
            except OSError as error:
                log.warning(
                    "remove %s yourself (%s), or the next start stops at once", self.file, error.strerror
                )

    def call_previous_handler(self, reason: StopReason) -> None:
        """Call the signal handler that was installed before this object, once the state is saved: submitit's requeues.

        Where this rank received no signal (another rank did, or the wall time is near), USR2 is assumed, SLURM's usual
        warning. submitit's handler ends the process. Default handlers are not called; the caller ends the process.
        """
        if reason in (StopReason.SIGNAL, StopReason.WALL_TIME):
            number = self.signal or signal.SIGUSR2
            handler = self.previous.get(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)

    def __enter__(self) -> StopRequest:
        self.previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        self.signal = next(iter(early_signals.noted), None)
        self.interrupts.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.interrupts.stop()
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.was_interrupted:
            raise KeyboardInterrupt
        self.was_interrupted |= number == signal.SIGINT
        self.signal = self.signal or signal.Signals(number)

    def _finds_file(self) -> bool:
        if self.file is None or (now := self.clock()) < self._next_look:
            return False
        self._next_look = now + LOOK_EVERY_SECONDS
        self._is_file_seen = self.file.exists()
        return self._is_file_seen


# --- the wall time


@dataclass(kw_only=True)
class StopConfig:
    # save and stop this long after the start; null: SLURM's limit, if any
    wall_minutes: float | None = bounded(None, above=0)


class Deadline:
    """The latest moment to ask for a stop: `observe` durations, then ask `is_near`.

    The margin and the assumed duration of a save are at most LARGEST_SHARE of the time from now to `end` each.
    """

    def __init__(
        self,
        end: float,
        clock: Callable[[], float] = time.time,
        *,
        margin_seconds: float = MARGIN_SECONDS,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        self.end = end
        self.clock = clock
        largest = max(0.0, LARGEST_SHARE * (end - clock()))
        self.margin = min(margin_seconds, largest)
        self.seen: dict[str, deque[float]] = {}
        self.longest = {"step": 0.0, "save": min(save_seconds, largest)}
        self.is_compiled = False
        self.stop_at = self._latest_stop()

    def observe(self, kind: str, seconds: float) -> None:
        """Note how long a `step` (from vote to vote), a `save` (to its last byte) or other work between steps took.

        The first step includes compilation: its duration is replaced by that of the second.
        """
        if kind == "step" and not self.is_compiled:
            self.is_compiled = True
            self.longest[kind] = seconds
        else:
            seen = self.seen.setdefault(kind, deque(maxlen=SEEN_LATELY))
            seen.append(seconds)
            self.longest[kind] = max(seen)
        self.stop_at = self._latest_stop()

    @property
    def is_near(self) -> bool:
        """Whether to ask for a stop now."""
        return self.clock() >= self.stop_at

    @property
    def is_save_worthwhile(self) -> bool:
        """Whether a save that begins now ends before the last save begins, which would wait for it otherwise."""
        return self.clock() + self.longest["save"] <= self.stop_at

    def _latest_stop(self) -> float:
        steps = STEPS_UNTIL_ANSWERED * self.longest["step"]
        return self.end - self.margin - steps - sum(s for kind, s in self.longest.items() if kind != "step")


def find_deadline(
    config: StopConfig, env: Mapping[str, str], started: float, clock: Callable[[], float] = time.time
) -> Deadline | None:
    """The earlier of SLURM's end of the job and `wall_minutes` after `started`, if there is one."""
    ends = _slurm_end(env)
    if config.wall_minutes is not None:
        ends.append(started + 60 * config.wall_minutes)
    return Deadline(min(ends), clock) if ends else None


def _slurm_end(env: Mapping[str, str]) -> list[float]:
    if (found := env.get("SLURM_JOB_END_TIME")) is None:
        return []
    try:
        return [float(found)]
    except ValueError:
        log.warning(
            "SLURM_JOB_END_TIME=%s is not a time; set stop.wall_minutes to stop before the limit", found
        )
        return []


# --- a second Ctrl-C


class Interrupts:
    """Ends the process at the second Ctrl-C; `start` and `stop` are called by the main thread."""

    def start(self) -> None:
        listening, writing = socket.socketpair()
        writing.setblocking(False)
        self.writing = writing
        self.before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=end_at_the_second, args=(listening,), name="interrupts", daemon=True).start()

    def stop(self) -> None:
        signal.set_wakeup_fd(self.before)
        self.writing.close()


def end_at_the_second(listening: socket.socket) -> None:
    """Read signal numbers until the other end is closed; end the process at the second INT."""
    seen = 0
    with listening:
        while numbers := listening.recv(64):
            seen += numbers.count(signal.SIGINT)
            if seen > 1:
                time.sleep(GRACE_SECONDS)
                os._exit(INTERRUPTED)
