"""The content of lease.json: which process holds the run folder, and a count of renewals."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from lediflow.records import read_dataclass, read_record

INTERVAL_SECONDS = 5.0  # between renewals
PATIENCE = 3  # intervals without renewal after which a lease counts as abandoned
# constant size of the file in bytes: a renewal is one write in place, with no rest of an older text
SIZE = 1024
TORN_READS, TORN_SECONDS = 5, 0.05


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
        return self.is_given_back or (self.machine == this_machine() and not is_alive(self.pid))

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


def own_record(env: Mapping[str, str] = os.environ) -> LeaseRecord:
    """The record that this process writes when it takes the lease."""
    now = time.time()
    return LeaseRecord(
        token=uuid4().hex[:12],
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
    raise UnreadableLeaseError(errno.EBADMSG, "it is no lease", str(path))


def this_machine() -> str:
    """Equal for two processes that see each other's process ids; containers of one machine may differ."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def is_alive(pid: int) -> bool:
    """Whether a process of this id exists; a reused id counts as alive."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
