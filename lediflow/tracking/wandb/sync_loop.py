"""Follows a log that grows: sends what is new every few seconds, through outages of the network and of wandb.

A fault drops what is open, and the next attempt begins with what the server has. So the followed run is complete in the
end, however often its connection was lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from lediflow.records import one_line
from lediflow.run_folder import RunFolder
from lediflow.tracking.wandb.client import LoginError, end_service, import_wandb
from lediflow.tracking.wandb.log_index import IndexedLog
from lediflow.tracking.wandb.record import BusyError, Target, only_writer
from lediflow.tracking.wandb.sending import Session, begin_again, is_finished, require_log, settled_record

log = logging.getLogger(__name__)

EVERY_SECONDS = 2.0  # between two looks at the log
SHARE = 0.05  # of the time that following may take: looking at a long log is slower
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 10.0, 600.0  # after a fault; doubled with each in a row
FINISH_SECONDS = 8.0  # for uploads, when the training has ended
LOWEST_PRIORITY = 19  # of processes; the training goes first
STANDARD_INPUT = 0  # descriptor
LEAVE_SECONDS = 10.0  # from the end of the training until the process ends in any case

Stopped = Callable[[float], bool]  # waits so many seconds, or less if following is to end; whether it is


def follow(folder: RunFolder, target: Target, *, is_renewed: bool = False) -> None:
    """Follow a run until its training has ended, or until Ctrl-C; what is there by then is sent."""
    require_log(folder)
    import_wandb()  # its absence is an error at once, and not a fault after which to try again
    with only_writer(folder):
        if is_renewed:
            begin_again(folder)

        def stopped(seconds: float) -> bool:
            try:
                time.sleep(seconds)
            except KeyboardInterrupt:
                return True
            return is_finished(folder)

        keep_sending(folder, target, stopped)


def follow_parent(folder: RunFolder, target: Target) -> bool:
    """Follow the run of the process that started this one, until that closes our standard input or ends.

    Ends within LEAVE_SECONDS after that, whatever W&B does. Returns whether everything was sent.
    """
    ended = threading.Event()

    def await_end() -> None:
        # not sys.stdin: a thread that waits there holds its lock, and then Python aborts at exit
        with contextlib.suppress(OSError):  # there is no standard input
            while os.read(STANDARD_INPUT, 1):
                pass
        ended.set()
        time.sleep(LEAVE_SECONDS)
        end_service()
        os._exit(1)

    os.nice(LOWEST_PRIORITY)
    threading.Thread(target=await_end, daemon=True).start()
    while not folder.events.is_file():
        if ended.wait(EVERY_SECONDS):
            return True
    while True:
        try:
            with only_writer(folder):
                return keep_sending(folder, target, ended.wait, finish_seconds=FINISH_SECONDS)
        except BusyError:  # the follower of the start before this one is about to end
            if ended.wait(EVERY_SECONDS):
                return False


def keep_sending(folder: RunFolder, target: Target, stopped: Stopped, *, finish_seconds: float = 0) -> bool:
    """Send what is new until asked to stop, and begin again after faults; whether everything was sent."""
    retry = FIRST_RETRY_SECONDS
    while True:
        began = time.monotonic()
        try:
            send_until(folder, target, stopped, finish_seconds)
            return True
        except LoginError:
            raise
        except Exception as error:
            if time.monotonic() - began > LAST_RETRY_SECONDS:
                retry = FIRST_RETRY_SECONDS
            log.warning(
                "W&B failed (%s); the event log has everything", one_line(error) or type(error).__name__
            )
        if stopped(0.0) or stopped(retry):
            return False
        log.info("connecting to W&B again")
        retry = min(2 * retry, LAST_RETRY_SECONDS)


def send_until(folder: RunFolder, target: Target, stopped: Stopped, finish_seconds: float) -> None:
    """Send what is new until asked to stop, and then finish the W&B run."""
    log_index = IndexedLog(folder.events)
    record = settled_record(folder, target, log_index)
    with Session.opened(folder, target, record, log_index, finish_seconds=finish_seconds) as session:
        log.info("W&B shows %s at %s", folder.root, session.place or "files, when the run has ended")
        while not paused(stopped, session.update):
            pass
        session.update(is_last=True)


def paused(stopped: Stopped, update: Callable[[], object]) -> bool:
    """Update, and wait until the next time; whether following is to end."""
    before = time.monotonic()
    update()
    return stopped(max(EVERY_SECONDS, (time.monotonic() - before) / SHARE))
