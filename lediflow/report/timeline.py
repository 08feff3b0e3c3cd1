"""When a run trained, waited and lost work: its sessions along the elapsed time, from the times of its events.

A session is one start of training in the run folder. Elapsed time never falls: where the clock was set back, the time
between two events is unknown and counts as the training that the second one reports, or as nothing. The time between
two sessions is waiting: in a queue, or for somebody to start again.

Inside a session, the time until an event belongs to what the event reports: a validation, pictures, compilation; of the
time until an event `train`, the images of its window over their speed is training and the rest is overhead (starting,
loading, saving). Training beyond the place where the run resumed is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from lediflow.tracking.event_log import RESUME, START, TURNED, Event, number
from lediflow.tracking.secrets import without_secrets

TRAINING, LOST, OVERHEAD, WAITING = "training", "lost", "overhead", "waiting"
VALIDATION, PICTURES = "validation", "pictures"
# the kind of the time that ends with an event; until any other event the run trained
KINDS = {"validation": VALIDATION, "pictures": PICTURES, "compiled": OVERHEAD, "prior_width": OVERHEAD}
SESSION_FACTS = ("job", "restart", "host", "commit", "command")  # of the events `start` and `resume`
CHECKPOINT, FAULT, NOTE = "checkpoint", "fault", "note"
# events that other processes add to the log, at any time: they say nothing about the training
FOREIGN = ("evaluation",)
# events that are marked on the time line
MARKED = {
    "checkpoint": CHECKPOINT,
    "checkpoint_failed": FAULT,
    "bad_step": FAULT,
    "stall": FAULT,
    "rank_failed": FAULT,
    "rank_silent": FAULT,
    TURNED: NOTE,
    "options": NOTE,
}
WHAT = {
    "checkpoint": "checkpoint",
    "checkpoint_failed": "checkpoint that could not be written",
    "bad_step": "step left out: no finite gradient",
    TURNED: "held-out loss has turned",
    "options": "options changed",
}


class Mark(NamedTuple):
    """A moment on the time line."""

    elapsed: float  # seconds
    images_seen: int
    kind: str  # CHECKPOINT | FAULT | NOTE
    text: str


class Window(NamedTuple):
    """Images that were trained between two events `train`."""

    start: int
    end: int
    seconds: float
    logged: float  # elapsed seconds at the second event


class Stretch(NamedTuple):
    """A part of the elapsed time that went into one kind of work."""

    kind: str
    start: float
    end: float


@dataclass
class Session:
    """One start of training."""

    begun: str  # ISO 8601, by the clock of the machine
    start: float  # elapsed seconds
    from_images: int
    ranks: int | None = None
    end: float = 0.0
    to_images: int = 0
    kept_images: int | None = (
        None  # where the next session resumed, if that is before `to_images`; None: all kept
    )
    returns: int = 0  # how often it went back to a checkpoint by itself
    ended: str = ""  # why, if its supervisor recorded it
    facts: dict[str, str] = field(default_factory=dict)  # see `session_facts`; older logs have none
    seconds: dict[str, float] = field(default_factory=dict)  # by kind: TRAINING, VALIDATION, ..., LOST

    @property
    def lost_images(self) -> int:
        return 0 if self.kept_images is None else max(0, self.to_images - self.kept_images)

    def add(self, kind: str, seconds: float) -> None:
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds


class History:
    """Collects the sessions and marks of a log, event by event."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.marks: list[Mark] = []
        self.stretches: list[Stretch] = []  # adjacent, in order
        self.waiting = 0.0
        self.elapsed = 0.0
        self._last_time: float | None = None
        self._windows: list[tuple[Session, Window]] = []
        self._place = 0  # end of the last window
        self._mixed = 0.0  # seconds since the last window that are training or overhead
        self._undrawn = 0.0  # those of them that are in no stretch yet

    def add(self, event: Event) -> None:
        """Add the next event of the log."""
        name, seen = event["event"], event["images_seen"]
        if name in FOREIGN:
            return
        moment = datetime.fromisoformat(event["time"]).timestamp()
        passed = 0.0 if self._last_time is None else moment - self._last_time
        self._last_time = moment
        is_resume = name == RESUME
        if is_resume or name == START:
            self._discard_beyond(seen)
        if not self.sessions or name == START or (is_resume and event.get("why", "start") == "start"):
            self._begin_session(event, max(0.0, passed))
            return
        session = self.sessions[-1]
        session.returns += is_resume
        self._count(session, event, passed)
        session.end, session.to_images = self.elapsed, max(session.to_images, seen)
        if name in MARKED:
            self.marks.append(Mark(self.elapsed, seen, MARKED[name], described(event)))

    def _begin_session(self, event: Event, waited: float) -> None:
        self.end_session()
        if self.sessions:
            self.waiting += waited
            self.elapsed += waited
            self._draw(WAITING, waited)
            before = self.sessions[-1]
            if event["images_seen"] < before.to_images:
                before.kept_images = event["images_seen"]
        ranks = event.get("ranks")
        begun = Session(
            event["time"], self.elapsed, event["images_seen"], ranks if isinstance(ranks, int) else None
        )
        begun.end, begun.to_images = self.elapsed, event["images_seen"]
        begun.facts = {key: without_secrets(str(event[key])) for key in SESSION_FACTS if key in event}
        self.sessions.append(begun)
        self._place = event["images_seen"]

    def _count(self, session: Session, event: Event, passed: float) -> None:
        """Add the time since the last event to the elapsed time and to its kind."""
        name, seen = event["event"], event["images_seen"]
        speed = number(event.get("images_per_second")) if name == "train" else None
        images = seen - self._place
        trained = images / speed if speed and speed > 0 and images > 0 else 0.0
        if passed < 0:
            passed = max(0.0, trained - self._mixed)
        self.elapsed += passed
        if name in KINDS:
            session.add(KINDS[name], passed)
            self._draw(TRAINING, self._undrawn)
            self._undrawn = 0.0
            self._draw(KINDS[name], passed)
            return
        self._mixed += passed
        self._undrawn += passed
        if name == "train":
            # without a speed all of the time counts, without new images none
            seconds = min(trained if speed else self._mixed * (images > 0), self._mixed)
            session.add(TRAINING, seconds)
            session.add(OVERHEAD, self._mixed - seconds)
            self._draw(OVERHEAD, max(0.0, self._undrawn - seconds))
            self._draw(TRAINING, min(self._undrawn, seconds))
            if images > 0:
                self._windows.append((session, Window(self._place, seen, seconds, self.elapsed)))
            self._place, self._mixed, self._undrawn = seen, 0.0, 0.0

    def end_session(self) -> None:
        """Count what is left at the end of a session, after its last window."""
        if self.sessions and self._mixed:
            self.sessions[-1].add(OVERHEAD, self._mixed)
        self._draw(OVERHEAD, self._undrawn)
        self._mixed = self._undrawn = 0.0

    def _draw(self, kind: str, seconds: float) -> None:
        """Add a stretch; it continues the last one if that is of the same kind."""
        if seconds <= 0:
            return
        start = end = self.stretches[-1].end if self.stretches else 0.0
        if self.stretches and self.stretches[-1].kind == kind:
            start = self.stretches.pop().start
        self.stretches.append(Stretch(kind, start, end + seconds))

    def _discard_beyond(self, place: int) -> None:
        """Training beyond `place` is lost."""
        lost_from = self.elapsed
        while self._windows and self._windows[-1][1].end > place:
            session, window = self._windows.pop()
            kept = max(0, place - window.start) / (window.end - window.start) * window.seconds
            lost_from = window.logged - window.seconds + kept
            session.add(LOST, window.seconds - kept)
            session.add(TRAINING, kept - window.seconds)
            if kept:
                self._windows.append((session, Window(window.start, place, kept, lost_from)))
        self._place = min(self._place, place)
        self._mark_lost(lost_from)

    def _mark_lost(self, since: float) -> None:
        """Training after this moment is drawn as lost."""
        later: list[Stretch] = []
        while self.stretches and self.stretches[-1].end > since:
            kind, start, end = self.stretches.pop()
            if kind != TRAINING:
                later.append(Stretch(kind, start, end))
                continue
            later.append(Stretch(LOST, max(start, since), end))
            if start < since:
                self.stretches.append(Stretch(TRAINING, start, since))
                break
        self.stretches += reversed(later)


@dataclass(frozen=True)
class Timeline:
    """The history of a run, ready to be shown."""

    name: str
    sessions: Sequence[Session]
    marks: Sequence[Mark]
    stretches: Sequence[Stretch]
    seconds: dict[str, float]  # by kind, WAITING included; the sum is `elapsed`
    elapsed: float

    @property
    def goodput(self) -> float | None:
        """Training that the weights contain over the time without waiting; None for an empty log."""
        held = self.elapsed - self.seconds[WAITING]
        return self.seconds[TRAINING] / held if held > 0 else None


def timeline(name: str, history: History) -> Timeline:
    """The history so far as a time line."""
    history.end_session()
    kinds = (TRAINING, VALIDATION, PICTURES, OVERHEAD, LOST)
    seconds = {kind: sum(session.seconds.get(kind, 0.0) for session in history.sessions) for kind in kinds}
    return Timeline(
        name=name,
        sessions=history.sessions,
        marks=history.marks,
        stretches=history.stretches,
        seconds=seconds | {WAITING: history.waiting},
        elapsed=history.elapsed,
    )


def described(event: Event) -> str:
    """The text of a mark."""
    more: Any = (
        event.get("sentence") or event.get("reason") or event.get("message") or event.get("changed") or ""
    )
    what = WHAT.get(event["event"], event["event"].replace("_", " "))
    text = "; ".join(map(str, more)) if isinstance(more, list) else str(more)
    return f"{what}: {without_secrets(text)}" if text else what
