"""The lease of a run folder: two starts of one run never write it together.

Rank 0 holds RUN/lease.json while it trains. A machine that its scheduler believes lost may keep working while the run
is started again elsewhere. So a holder rewrites its lease every few seconds, and leaves when it finds another lease in
its place. The file says which process holds the run folder, and counts the renewals.

Taking. A start takes a lease that is absent, was given back, belongs to a dead process, or is no longer renewed. It
takes a live one only from an older start of the same SLURM job, and waits for that start to leave. Any other live
lease is refused (UserError).

Conventions:
- Clocks of two machines are never compared. A start that wants the lease watches, by its own clock, whether it changes;
  a holder counts, by its own clock, how long ago it last renewed its lease.
- A start takes the lease by renaming a new file over it; a holder renews through the descriptor of the file it made. So
  an older holder cannot overwrite a newer lease, however late it wakes up.
- A holder that could not renew its lease for PATIENCE intervals gives it up. That is earlier than anybody else, who
  waits equally long from a later moment on, can take it for abandoned.
Source: Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency", 1989.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from lediflow.disk import process_exists
from lediflow.engine.stop import StopReason
from lediflow.errors import UserError
from lediflow.records import read_dataclass, read_record

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0  # between renewals
PATIENCE = 3  # intervals without renewal after which a lease counts as abandoned
# constant size of the file in bytes: a renewal is one write in place, with no rest of an older text
SIZE = 1024
# tries to read a lease that is being renewed at that moment, and the pause between them
TORN_READS, TORN_SECONDS = 5, 0.05
LOOK_EVERY_SECONDS = 0.1
LEFT = ".left"  # suffix of the file that a start which lost the lease makes when it has left

# --- the file


class UnreadableLeaseError(OSError):
    """The file exists, but its content is not a lease."""


@dataclass(frozen=True, kw_only=True)
class LeaseRecord:
    """One start of a run. Times are by the holder's clock, for people to read."""

    token: str
    job: str | None  # SLURM's id, the same after a requeue; null elsewhere
    restart: int  # how often SLURM has requeued the job
    host: str
    machine: str  # identifies the kernel and the container in which `pid` is valid
    pid: int
    interval: float  # seconds between renewals
    taken: float  # since the epoch
    renewed: float
    renewals: int = 0  # a number that no longer grows means that the holder is gone
    is_given_back: bool = False

    @property
    def patience(self) -> float:
        """Seconds without renewal after which the lease counts as abandoned."""
        return PATIENCE * self.interval

    @property
    def is_over(self) -> bool:
        """Whether its holder is known to be gone."""
        return self.is_given_back or (self.machine == this_machine() and not process_exists(self.pid))

    def precedes(self, other: LeaseRecord) -> bool:
        """Whether `other` is a later start of the same SLURM job."""
        return self.job is not None and self.job == other.job and self.restart < other.restart

    @property
    def holder(self) -> str:
        job = f"SLURM job {self.job}, " if self.job else ""
        return f"{job}process {self.pid} on {self.host}"

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.taken))
        return f"{self.holder}, since {since} by its clock"


def new_token() -> str:
    """A random name for one start of a run, by which its files differ from those of other starts."""
    return uuid4().hex[:12]


def own_record(env: Mapping[str, str] = os.environ) -> LeaseRecord:
    """The record that this process writes when it takes the lease."""
    now = time.time()
    return LeaseRecord(
        token=new_token(),
        job=env.get("SLURM_JOB_ID"),
        restart=int(env.get("SLURM_RESTART_COUNT", "0")),
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        interval=INTERVAL_SECONDS,
        taken=now,
        renewed=now,
    )


def encoded(record: LeaseRecord) -> bytes:
    return json.dumps(dataclasses.asdict(record)).ljust(SIZE - 1).encode() + b"\n"


def read_lease(path: Path) -> LeaseRecord | None:
    """The present lease; None where there is none. OSError if it cannot be read."""
    for _ in range(TORN_READS):
        try:
            os.listdir(path.parent)  # noqa: PTH208 - refreshes the cache of a network file system
            found = read_record(path, "a new start replaces it")
            record: LeaseRecord = read_dataclass(LeaseRecord, found, "lease")
            return record
        except ValueError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            # perhaps it was read during a renewal
            time.sleep(TORN_SECONDS)
    raise UnreadableLeaseError(errno.EBADMSG, "it is not a lease", str(path))


def this_machine() -> str:
    """An identifier that is equal for two processes that see each other's ids; containers of one machine may differ."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


# --- taking the lease


def take(path: Path, mine: LeaseRecord) -> tuple[int, LeaseRecord | None]:
    """Take the lease; returns the descriptor to renew it by, and the older start that must leave first, or None."""
    theirs = look(path)
    is_free = theirs is None or theirs.is_over
    if theirs is not None and not is_free and not theirs.precedes(mine):
        await_silence(path, theirs)
        is_free = True
    for mark in path.parent.glob(f".{path.name}.*{LEFT}"):
        mark.unlink(missing_ok=True)
    return put(path, mine), None if is_free else theirs


def look(path: Path) -> LeaseRecord | None:
    """The lease; None where there is none, or where a damaged disk made it unreadable."""
    try:
        return read_lease(path)
    except UnreadableLeaseError:
        return None


def put(path: Path, mine: LeaseRecord) -> int:
    """Replace the lease by a new file; its descriptor."""
    new = path.with_name(f".{path.name}.{mine.token}")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    write(descriptor, mine)
    new.rename(path)
    return descriptor


def write(descriptor: int, record: LeaseRecord) -> None:
    """Write the record in place; other machines see it when this returns."""
    os.pwrite(descriptor, encoded(record), 0)
    os.fsync(descriptor)


def await_silence(path: Path, theirs: LeaseRecord) -> None:
    """Wait until the lease counts as abandoned; UserError as soon as it is renewed."""
    deadline = time.monotonic() + theirs.patience
    while time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_SECONDS)
        now = look(path)
        if now is None or now.is_over:
            return
        if now != theirs:
            raise UserError(refusal(path.parent, now))


def refusal(run: Path, live: LeaseRecord) -> str:
    """The error message for a run folder that another process holds."""
    end = f"scancel {live.job}" if live.job else f"kill {live.pid} on {live.host}"
    return (
        f"run={run} is being trained by {live}; two starts must not write one folder. Wait for it, "
        f"stop it (`touch {run}/stop` saves first; `{end}`), or choose another run="
    )


def await_departure(path: Path, older: LeaseRecord) -> None:
    """Wait until the older start has left, is dead, or must have noticed the loss by its own clock."""
    mark = left_mark(path, older)
    deadline = time.monotonic() + older.patience
    while time.monotonic() < deadline and not older.is_over and not mark.exists():
        time.sleep(LOOK_EVERY_SECONDS)
        os.listdir(path.parent)  # noqa: PTH208 - refreshes the cache of a network file system
    mark.unlink(missing_ok=True)


def left_mark(path: Path, older: LeaseRecord) -> Path:
    """The file by which a start that lost the lease shows that it has left."""
    return path.with_name(f".{path.name}.{older.token}{LEFT}")


# --- holding it


class LeaseLostError(UserError):
    """This process may no longer write the run folder."""


class Lease:
    """`with Lease(RUN/lease.json, own_record()) as lease`, on rank 0. Threads may share it."""

    def __init__(
        self,
        path: Path,
        record: LeaseRecord,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self.path, self.record, self.clock, self.leave = path, record, clock, leave
        self.is_held = False
        self.is_over = threading.Event()
        self.lock = threading.Lock()

    def holds(self) -> bool:
        """Whether this process may write the run folder. Cheap: reads the file only if the last renewal is old."""
        if self.is_held and self.clock() - self.renewed < self.record.patience:
            return True
        return self.is_held and self.confirm()

    def confirm(self) -> bool:
        """Whether this process may write the run folder, after reading and renewing the lease."""
        if not self.lock.acquire(timeout=self.record.interval):
            return False  # the renewing thread hangs in a disk that does not answer
        try:
            if self.is_held:
                self._renew()
            return self.is_held
        finally:
            self.lock.release()

    def fence(self) -> None:
        """Raise LeaseLostError unless the lease is held; call it before a write that two starts must not both make."""
        if not self.confirm():
            raise LeaseLostError(f"{self.path.parent} is no longer held by this process")

    def __enter__(self) -> Lease:
        self.descriptor, older = take(self.path, self.record)
        self.renewed, self.is_held = self.clock(), True
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.thread.start()
        if older is not None:
            log.warning("taking %s over from %s; waiting for it to leave", self.path.parent, older)
            await_departure(self.path, older)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over.set()
        self._release()

    def _keep(self) -> None:
        while not self.is_over.wait(self.record.interval):
            if not self.confirm():
                self._end()
                return

    def _end(self) -> None:
        """End the process unless the training loop, which learns of the loss by its vote, ends it first.

        The next holder waits for this process to leave, so a loop that hangs must not delay it.
        """
        if not self.is_over.wait(self.record.interval):
            log.critical("this process ends without saving: %s", StopReason.LEASE_LOST.sentence)
            self._release()
            sys.stdout.flush()
            sys.stderr.flush()
            self.leave(StopReason.LEASE_LOST.exit_status)

    def _renew(self) -> None:
        now = self.clock()
        try:
            found = read_lease(self.path)
            if found is None or found.token != self.record.token:
                self._lose(f"held by {found}" if found else "gone")
                return
            renewals = self.record.renewals + 1
            self.record = replace(self.record, renewed=time.time(), renewals=renewals)
            write(self.descriptor, self.record)
            self.renewed = now
        except OSError as error:
            if now - self.renewed >= self.record.patience:
                self._lose(f"out of reach since {now - self.renewed:.0f} s ({error})")

    def _lose(self, how: str) -> None:
        self.is_held = False
        log.error("the lease of this run, %s, is %s", self.path, how)

    def _release(self) -> None:
        """Give the lease back, or show its present holder that this process has left."""
        is_ours = self.confirm()
        self.is_held = False
        with contextlib.suppress(OSError):
            if is_ours:
                write(self.descriptor, replace(self.record, is_given_back=True))
            else:
                left_mark(self.path, self.record).touch()
            os.close(self.descriptor)


class NoLease:
    """The lease on ranks other than 0, which learn of its loss by rank 0's vote: it is always held."""

    def holds(self) -> bool:
        return True

    def confirm(self) -> bool:
        return True

    def fence(self) -> None:
        """Do nothing: only rank 0 reads the file."""


def leased(path: Path, *, is_first: bool) -> contextlib.AbstractContextManager[Lease | NoLease]:
    """The lease, held inside the context; only rank 0 touches the file.

    The other ranks need not wait for it: their first collective waits for rank 0.
    """
    return Lease(path, own_record()) if is_first else contextlib.nullcontext(NoLease())
