"""A request to stop is a flag; the loop votes with it at each step, all ranks agree, save together and leave.

Requests come as signals: INT (Ctrl-C), TERM, USR1 and USR2 (SLURM's warning before the time limit); as a file: `touch
RUN/stop`; from the clock: the wall time is near (deadline.py); or because the run folder is no longer ours (lease). A
second Ctrl-C ends the process at once, as people expect. Signals count from the moment the `with` block is entered,
long before there is a loop.
"""

from __future__ import annotations

import enum
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lediflow.engine import early
from lediflow.engine.deadline import Deadline
from lediflow.engine.interrupts import Interrupts

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LOOK_EVERY_SECONDS = 1.0  # for the file: a call to a shared file system may take milliseconds


class StopReason(enum.IntEnum):
    """Why a run stops; of several reasons the largest wins.

    A person's file outranks what asks for a new start: it alone says that the run should not go on by itself. A lost
    lease outranks it: then nothing is written any more, and the file is for those who have the folder now.
    """

    NONE = 0
    WALL_TIME = 1
    SIGNAL = 2
    STOP_FILE = 3
    LEASE_LOST = 4

    @property
    def exit_status(self) -> int:
        """75 is EX_TEMPFAIL of sysexits.h; the others lie above its range."""
        return {"NONE": 0, "SIGNAL": 75, "WALL_TIME": 79, "STOP_FILE": 80, "LEASE_LOST": 82}[self.name]

    @property
    def sentence(self) -> str:
        return {
            "NONE": "nobody asked for a stop",
            "WALL_TIME": "the wall time is near",
            "SIGNAL": "a signal asked for a stop",
            "STOP_FILE": "the stop file asked for a stop",
            "LEASE_LOST": "the run folder is no longer this start's to write",
        }[self.name]


class StopRequest:
    """Within `with StopRequest() as stop`, `stop.vote()` is this rank's reason to stop.

    `file`, `deadline` and `holds` may be set later, when they are known, on the first rank only.
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
        self.holds: Callable[[], bool] = lambda: True  # whether the run folder is still ours (lease)
        self.signal: signal.Signals | None = None  # the first stop signal received
        self.was_interrupted = False  # by Ctrl-C
        self.interrupts = Interrupts()
        self.previous: dict[signal.Signals, Any] = {}  # the handlers before ours
        self._is_file_seen = False
        self._next_look = -float("inf")

    @property
    def is_raised(self) -> bool:
        return self.vote() is not StopReason.NONE

    def vote(self) -> StopReason:
        """Cheap enough for every step."""
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
        """Tell the deadline, if there is one, how long a `step`, a `save` or another pause took."""
        if self.deadline is not None:
            self.deadline.observe(kind, seconds)

    @property
    def makes_saving_pointless(self) -> bool:
        """Whether the wall time is so near that the last save would wait for one that begins now."""
        return self.deadline is not None and not self.deadline.is_save_worthwhile

    def consume(self) -> None:
        """Remove the stop file that was seen, so that the next start runs; call it once the state is saved."""
        if self._is_file_seen and self.file is not None:
            try:
                self.file.unlink(missing_ok=True)
            except OSError as error:
                log.warning(
                    "remove %s yourself (%s), or the next start stops at once", self.file, error.strerror
                )

    def hand_on(self, reason: StopReason) -> None:
        """Tell whoever handled warnings before us, once the state is saved: submitit then requeues the job.

        The warning may have reached another rank, or be our own reading of the clock: then it counts as SLURM's usual
        USR2. submitit's handler ends the process; a default handler is not called, leaving is the caller's business.
        """
        if reason in (StopReason.SIGNAL, StopReason.WALL_TIME):
            number = self.signal or signal.SIGUSR2
            handler = self.previous.get(number)
            if callable(handler) and handler is not signal.default_int_handler:
                handler(number, None)

    def __enter__(self) -> StopRequest:
        self.previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        self.signal = next(iter(early.noted), None)
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
