"""A second Ctrl-C ends the process, also where it waits in foreign code: in a collective no Python handler runs.

The interpreter's own handler, which always runs, writes each signal's number into a socket; a thread reads it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

GRACE_SECONDS = 2.0  # for Python to end in order, if it hears of the interrupt
INTERRUPTED = 130  # as shells say it


class Interrupts:
    """`start` and `stop` are the main thread's."""

    def start(self) -> None:
        listening, told = socket.socketpair()
        told.setblocking(False)
        self.told = told
        self.before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=end_at_the_second, args=(listening,), name="interrupts", daemon=True).start()

    def stop(self) -> None:
        signal.set_wakeup_fd(self.before)
        self.told.close()


def end_at_the_second(listening: socket.socket) -> None:
    """Until the other end is closed."""
    seen = 0
    with listening:
        while numbers := listening.recv(64):
            seen += numbers.count(signal.SIGINT)
            if seen > 1:
                time.sleep(GRACE_SECONDS)
                os._exit(INTERRUPTED)
