"""Holding the lease: renewing it in a thread, noticing its loss, giving it back."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from lediflow.engine.lease.record import LeaseRecord, own_record, read_lease
from lediflow.engine.lease.taking import await_departure, left_mark, take, write
from lediflow.engine.preemption import StopReason
from lediflow.errors import UserError

log = logging.getLogger(__name__)


class LeaseLostError(UserError):
    """The run folder is no longer this process's to write."""


class Lease:
    """`with Lease(RUN/lease.json, own_record()) as lease`, on the first rank. Threads may share it."""

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
        """Whether the run folder is ours to write. Cheap: looks at the file only after a pause in renewing."""
        if self.is_held and self.clock() - self.renewed < self.record.patience:
            return True
        return self.is_held and self.confirm()

    def confirm(self) -> bool:
        """As `holds`, after a look at the file, which is renewed by that."""
        if not self.lock.acquire(timeout=self.record.interval):
            return False  # the other thread hangs in a disk that does not answer
        try:
            if self.is_held:
                self._renew()
            return self.is_held
        finally:
            self.lock.release()

    def fence(self) -> None:
        """Before what must not be written by two: LeaseLostError if the lease is no longer ours."""
        if not self.confirm():
            raise LeaseLostError(f"{self.path.parent} is no longer this process's to write")

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
        self._part()

    def _keep(self) -> None:
        while not self.is_over.wait(self.record.interval):
            if not self.confirm():
                self._end()
                return

    def _end(self) -> None:
        """The loop hears of it by its vote; one that hangs is not waited for: others wait for it to leave."""
        if not self.is_over.wait(self.record.interval):
            log.critical("this process ends without saving: %s", StopReason.LEASE_LOST.sentence)
            self._part()
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

    def _part(self) -> None:
        """Give the lease back, or tell whoever has it now that we leave."""
        is_ours = self.confirm()
        self.is_held = False
        with contextlib.suppress(OSError):
            if is_ours:
                write(self.descriptor, replace(self.record, is_given_back=True))
            else:
                left_mark(self.path, self.record).touch()
            os.close(self.descriptor)


class EveryonesLease:
    """Of ranks that leave the lease to the first one: they hear of its loss by the first one's vote."""

    def holds(self) -> bool:
        return True

    def confirm(self) -> bool:
        return True

    def fence(self) -> None:
        """Nothing to look at."""


def leased(path: Path, *, is_first: bool) -> contextlib.AbstractContextManager[Lease | EveryonesLease]:
    """The lease for as long as the context lasts; only the first rank touches the file.

    The others need not wait: before they can do anything together, the first one has to meet them.
    """
    return Lease(path, own_record()) if is_first else contextlib.nullcontext(EveryonesLease())
